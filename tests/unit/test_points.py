"""Where the packets of networks of each driver can be seen, and what the API says of it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from netplug.controller import EndpointRequest
from netplug.controller.points import Point
from netplug.errors import Conflict
from tests.unit.test_controller import Lab, lab

__all__ = ["lab"]


def told(points: Sequence[Point]) -> list[tuple[str, str, str]]:
    return [(point.namespace, point.link, point.owner) for point in points]


async def test_a_bridge_comes_after_its_ports(lab: Lab):
    network = await lab.network()
    endpoints = []
    for name in ("web", "db"):
        sandbox = await lab.sandbox(name)
        endpoints.append(await lab.controller.connect("demo", sandbox.id, EndpointRequest(names=(name,))))

    ports = [("", endpoint.host_interface, name) for endpoint, name in zip(endpoints, ("web", "db"), strict=True)]
    assert told(lab.controller.points_of_network("demo")) == [*ports, ("", f"br-{network.id[:12]}", "demo")]


@pytest.mark.parametrize("driver", ["macvlan", "ipvlan"])
async def test_links_on_a_parent_are_in_the_containers(lab: Lab, driver: str):
    await lab.network(driver=driver, options={"parent": "eth9"})
    sandbox = await lab.sandbox()
    await lab.controller.connect("demo", sandbox.id, EndpointRequest(names=("web",)))

    assert told(lab.controller.points_of_network("demo")) == [("", "eth9", "demo"), (sandbox.namespace, "eth0", "web")]


async def test_a_parent_that_was_made_for_the_network_is_one_point(lab: Lab):
    await lab.network(driver="macvlan", options={"parent": "eth9.10"})

    assert told(lab.controller.points_of_network("demo")) == [("", "eth9.10", "demo")]


async def test_a_container(lab: Lab):
    await lab.network()
    sandbox = await lab.sandbox()
    await lab.controller.connect("demo", sandbox.id, EndpointRequest(names=("web",)))
    known = lab.controller.sandbox(sandbox.id)
    assert known is not None

    (point,) = lab.controller.points_of_sandbox(sandbox.id)

    assert (point.namespace, point.link, point.owner) == (known.namespace, "", "web")
    assert point.dns == tuple(filter(None, (known.resolver_udp, known.resolver_tcp)))


async def test_a_container_on_the_hosts_network(lab: Lab):
    sandbox = await lab.sandbox(kind="host")

    with pytest.raises(Conflict, match=r"^container web is on the host's own network: capture on host$"):
        lab.controller.points_of_sandbox(sandbox.id)
