"""Both IP versions in the controller: addresses taken and given back together, pools of networks, and what is asked of the kernel."""

from __future__ import annotations

import pytest

from netplug.controller import EndpointRequest
from netplug.errors import AddressesExhausted, AddressInUse, AddressOutOfRange, InvalidArgument, StepFailed
from netplug.model import FoundLink, PoolConfig
from netplug.plan import IPV6_FORWARDING, Address, Announce, Route, Sysctl
from tests.unit.test_controller import Lab, lab

__all__ = ["lab"]

POOLS = (PoolConfig(subnet="10.50.0.0/24"), PoolConfig(subnet="fd50::/64"))


async def both(lab: Lab, name: str = "demo", **changes):
    return await lab.network(name, **{"ipv6": True, "pools": POOLS, **changes})


async def test_an_endpoint_has_an_address_of_each_ip_version(lab: Lab):
    network, sandbox = await both(lab), await lab.sandbox()

    endpoint = await lab.controller.connect("demo", sandbox.id, EndpointRequest(address6="FD50:0::ab"))

    assert (endpoint.address, endpoint.gateway, endpoint.static_address) == ("10.50.0.2/24", "10.50.0.1", False)
    assert (endpoint.address6, endpoint.gateway6, endpoint.static_address6) == ("fd50::ab/64", "fd50::1", True)
    keys = {key.rsplit("/", 1)[1] for key in lab.store.data if f"addresses/{network.id}" in key}
    assert keys == {"10.50.0.2", "fd50::ab"}
    gateways = [step.gateway for step in lab.executor.applied[-1] if isinstance(step, Route)]
    assert gateways == ["10.50.0.1", "fd50::1"]


async def test_disconnect_gives_both_back(lab: Lab):
    await both(lab)
    sandbox = await lab.sandbox()
    first = await lab.controller.connect("demo", sandbox.id, EndpointRequest())
    before = dict(lab.store.data)
    await lab.controller.disconnect("demo", sandbox.id)
    assert not [key for key in lab.store.data if "addresses" in key]
    second = await lab.controller.connect("demo", sandbox.id, EndpointRequest())
    assert (first.address, first.address6) == (second.address, second.address6) == ("10.50.0.2/24", "fd50::2/64")
    assert {key for key in lab.store.data if "addresses" in key} == {key for key in before if "addresses" in key}


@pytest.mark.parametrize(
    ("request6", "error"),
    [("fd50::1", AddressInUse), ("fd51::1", AddressOutOfRange), ("10.50.0.9", InvalidArgument), ("fe80::1%eth0", InvalidArgument)],
)
async def test_an_ipv6_address_that_cannot_be_had_keeps_no_ipv4_address(lab: Lab, request6: str, error: type[Exception]):
    await both(lab)
    sandbox = await lab.sandbox()
    with pytest.raises(error):
        await lab.controller.connect("demo", sandbox.id, EndpointRequest(address="10.50.0.7", address6=request6))
    endpoint = await lab.controller.connect("demo", sandbox.id, EndpointRequest(address="10.50.0.7"))
    assert endpoint.address6 == "fd50::2/64"


async def test_an_exhausted_ipv6_pool_keeps_no_ipv4_address(lab: Lab):
    await both(lab, pools=(POOLS[0], PoolConfig(subnet="fd50::/127")))
    first, second = await lab.sandbox("first"), await lab.sandbox("second")
    await lab.controller.connect("demo", first.id, EndpointRequest())
    with pytest.raises(AddressesExhausted, match="no available IPv6 addresses on this network's address pools: demo"):
        await lab.controller.connect("demo", second.id, EndpointRequest())
    (ipv4, _) = lab.controller.pool_usage(lab.controller.network("demo"))
    assert [one.address for one in ipv4.taken] == ["10.50.0.1", "10.50.0.2"]
    await lab.controller.disconnect("demo", first.id)
    assert (await lab.controller.connect("demo", second.id, EndpointRequest())).address == "10.50.0.2/24"


async def test_a_failed_step_leaves_neither(lab: Lab):
    await both(lab)
    sandbox = await lab.sandbox()
    before = dict(lab.store.data)
    lab.executor.fail_on = Address
    with pytest.raises(StepFailed):
        await lab.controller.connect("demo", sandbox.id, EndpointRequest())
    assert lab.store.data == before
    lab.executor.fail_on = None
    endpoint = await lab.controller.connect("demo", sandbox.id, EndpointRequest())
    assert (endpoint.address, endpoint.address6) == ("10.50.0.2/24", "fd50::2/64")


async def test_a_mac_is_made_of_the_address_that_there_is(lab: Lab):
    """So that a new owner has the MAC that neighbours know."""
    await both(lab, "six", ipv4=False, pools=POOLS[1:])
    macs = []
    for name in ("one", "two"):
        sandbox = await lab.sandbox(name)
        macs.append((await lab.controller.connect("six", sandbox.id, EndpointRequest())).mac)
        await lab.controller.disconnect("six", sandbox.id)
        plan = lab.executor.applied[-1]
        assert not [step for step in plan if isinstance(step, Announce)]
    assert macs[0] == macs[1]
    assert macs[0].startswith("02:42:")


async def test_an_ipv6_address_that_meets_another_ipv4_address_is_announced(lab: Lab):
    await both(lab)

    async def announced(name: str, **request: str) -> list[str]:
        sandbox = await lab.sandbox(name)
        await lab.controller.connect("demo", sandbox.id, EndpointRequest(**request))
        told = [step.address for step in lab.executor.applied[-1] if isinstance(step, Announce)]
        await lab.controller.disconnect("demo", sandbox.id)
        return told

    assert await announced("one", address6="fd50::9") == []
    assert await announced("two", address6="fd50::9") == [], "the same IPv4 address again, and so the same MAC"
    assert await announced("three", address6="fd50::9", address="10.50.0.77") == ["fd50::9"]
    assert await announced("four", address6="fd50::9", address="10.50.0.77") == []
    assert await announced("five", address6="fd50::9") == ["fd50::9"]


class TestPoolsOfNetworks:
    async def test_without_a_subnet_each_ip_version_gets_one(self, lab: Lab):
        network = await lab.network("demo", ipv6=True, pools=())
        assert [pool.subnet.split("/")[1] for pool in network.pools] == ["16", "64"]

    async def test_one_may_be_given_and_the_other_chosen(self, lab: Lab):
        network = await lab.network("demo", ipv6=True, pools=POOLS[1:])
        assert [pool.subnet for pool in network.pools] == ["172.17.0.0/16", "fd50::/64"]

    async def test_without_ipv4(self, lab: Lab):
        network = await lab.network("demo", ipv4=False, ipv6=True, pools=())
        assert [":" in pool.subnet for pool in network.pools] == [True]
        with pytest.raises(InvalidArgument, match="IPv4 or IPv6 must be enabled"):
            await lab.network("other", ipv4=False, pools=())

    @pytest.mark.parametrize(
        ("changes", "sentence"),
        [
            ({"pools": POOLS}, "subnet fd50::/64 needs IPv6, which the network has not: give --ipv6"),
            ({"pools": POOLS, "ipv4": False, "ipv6": True}, "subnet 10.50.0.0/24 needs IPv4, which the network has not"),
        ],
    )
    async def test_a_subnet_of_an_ip_version_that_is_off(self, lab: Lab, changes: dict[str, object], sentence: str):
        with pytest.raises(InvalidArgument, match=sentence):
            await lab.network("demo", **changes)

    async def test_the_users_bridge_says_subnet_and_gateway(self, lab: Lab, monkeypatch: pytest.MonkeyPatch):
        found = FoundLink(name="lab0", mac="0a:00:00:00:00:07", addresses=("192.0.2.9/24", "fe80::1/64", "fd77::9/64"))
        monkeypatch.setattr("netplug.kernel.found.users_link", lambda name: found if name == "lab0" else None)
        network = await lab.network("demo", ipv6=True, pools=(), options={"com.docker.network.bridge.name": "lab0"})
        assert network.found == (found,)
        assert [(pool.subnet, pool.gateway) for pool in network.pools] == [("192.0.2.0/24", "192.0.2.9"), ("fd77::/64", "fd77::9")]

    async def test_an_isolated_network_keeps_no_address_for_a_gateway(self, lab: Lab):
        options = {"com.docker.network.bridge.gateway_mode_ipv4": "isolated"}
        network = await both(lab, internal=True, options=options)
        assert [pool.gateway for pool in network.pools] == ["", "fd50::1"]
        endpoint = await lab.controller.connect("demo", (await lab.sandbox()).id, EndpointRequest())
        assert (endpoint.address, endpoint.gateway) == ("10.50.0.1/24", "")

    async def test_forwarding_may_be_the_admins(self, lab: Lab):
        forwarding = Sysctl(key=IPV6_FORWARDING, value="1")
        await both(lab)
        assert forwarding in lab.executor.applied[-1]
        lab.core.ip_forward = False
        await both(lab, "other", pools=(PoolConfig(subnet="10.60.0.0/24"), PoolConfig(subnet="fd60::/64")))
        assert forwarding not in lab.executor.applied[-1]
        assert lab.executor.applied[-1][0].name.startswith("br-")
