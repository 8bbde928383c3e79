"""Which endpoint carries which default route, and what moves when endpoints come and go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from netplug.controller import gateway
from netplug.model import Endpoint
from netplug.plan import Route
from netplug.testing import example_sandbox

SANDBOX = example_sandbox()


def endpoint(network: str, versions: str = "46", priority: int = 0) -> Endpoint:
    """On a network of that name, with a gateway of each IP version in `versions`."""
    return Endpoint(
        id=network * 8,
        network=network,
        sandbox=SANDBOX.id,
        created="",
        interface=f"eth-{network}",
        gateway="10.0.0.1" if "4" in versions else "",
        gateway6="fd00::1" if "6" in versions else "",
        gateway_priority=priority,
    )


def name(identity: str) -> str:
    return identity


def carriers(*endpoints: Endpoint) -> tuple[str, str]:
    """The networks that carry IPv4 and IPv6, each with the published ports of that version."""
    chosen = (gateway.carrier(endpoints, name, 4), gateway.carrier(endpoints, name, 6))
    first, second = (one.network if one else "" for one in chosen)
    return first, second


def route(network: str, via: str) -> Route:
    return Route(namespace=SANDBOX.namespace, destination="default", gateway=via, link=f"eth-{network}")


def test_the_first_name_carries_both():
    assert carriers(endpoint("beta"), endpoint("alpha")) == ("alpha", "alpha")


def test_one_endpoint_carries_ipv4_and_another_ipv6():
    assert carriers(endpoint("alpha", "4"), endpoint("beta", "6")) == ("alpha", "beta")


def test_among_equals_the_one_with_both_goes_first():
    assert carriers(endpoint("alpha", "4"), endpoint("beta", "46"), endpoint("aaa", "6")) == ("beta", "beta")


def test_priority_goes_before_all():
    assert carriers(endpoint("alpha"), endpoint("beta", "4", priority=1)) == ("beta", "alpha")


def test_without_ipv4_the_ports_go_with_ipv6():
    assert carriers(endpoint("alpha", ""), endpoint("beta", "6")) == ("", "beta")


def test_nothing_leads_out_of_internal_networks():
    assert carriers(endpoint("alpha", "")) == ("", "")


def test_each_route_moves_by_itself():
    alpha, beta = endpoint("alpha", "4"), endpoint("beta", "46")
    assert gateway.move(SANDBOX, (), (alpha,), name) == (route("alpha", "10.0.0.1"),)
    assert gateway.move(SANDBOX, (alpha,), (alpha, beta), name) == (route("beta", "10.0.0.1"), route("beta", "fd00::1"))
    assert gateway.move(SANDBOX, (alpha, beta), (alpha,), name) == (route("alpha", "10.0.0.1"),)


@given(
    endpoints=st.lists(
        st.builds(endpoint, st.sampled_from("abcdef"), st.sampled_from(["", "4", "6", "46"]), st.integers(-1, 1)),
        unique_by=lambda one: one.network,
        max_size=6,
    ),
    data=st.data(),
)
def test_the_moves_lead_from_any_state_to_any_other(endpoints: list[Endpoint], data: st.DataObject):
    def routes(found: list[Endpoint]) -> dict[int, Route]:
        return {family: gateway.route(SANDBOX, one, family) for family in (4, 6) if (one := gateway.carrier(found, name, family))}

    before, after = ([one for one in endpoints if data.draw(st.booleans())] for _ in range(2))
    links = {one.interface for one in after}
    state = {family: op for family, op in routes(before).items() if op.link in links}  # others go with their links
    for step in gateway.move(SANDBOX, before, after, name):
        assert isinstance(step, Route)
        state[6 if ":" in step.gateway else 4] = step
    assert state == routes(after)
