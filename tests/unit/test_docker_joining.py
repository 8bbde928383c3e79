"""The plugin protocol, with doubles behind the controller: whose an endpoint is, and networks that are joined as they are."""

from __future__ import annotations

from typing import Any

import pytest

from netplug.model import PoolConfig
from tests.unit.test_docker_plugin import ELSEWHERE, ENDPOINT, KEY, NET, NETWORK, OTHER, Plugin, plugin

__all__ = ["plugin"]


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("/run/docker/netns/ba9876543210", "has joined already, at /run/docker/netns/0123456789ab"),
        ("/tmp/0123456789ab", "sandbox 0123456789ab is at /run/docker/netns/0123456789ab"),
    ],
)
async def test_a_container_keeps_its_endpoints_when_another_asks_for_one(plugin: Plugin, key: str, said: str) -> None:
    await plugin.network()
    for identity in (ENDPOINT, OTHER):
        await plugin.endpoint(identity)
        await plugin.join(identity)
    before = dict(plugin.lab.store.data)
    elsewhere = {"NetworkID": NETWORK, "EndpointID": ENDPOINT, "SandboxKey": key, "Options": {}}

    assert said in await plugin.refused(NET + "Join", elsewhere)

    assert plugin.lab.store.data == before
    assert {endpoint.id for endpoint in plugin.lab.controller.endpoints(sandbox="0123456789ab")} == {ENDPOINT, OTHER}
    for identity in (ENDPOINT, OTHER):
        await plugin.ok(NET + "Leave", {"NetworkID": NETWORK, "EndpointID": identity})
    await plugin.endpoint()
    await plugin.join(key=key)


async def test_a_container_that_starts_again_joins_with_another_key(plugin: Plugin) -> None:
    await plugin.network()
    for key in (KEY, "/run/docker/netns/ba9876543210"):
        await plugin.endpoint()
        await plugin.join(key=key)
        await plugin.ok(NET + "Leave", {"NetworkID": NETWORK, "EndpointID": ENDPOINT})
    assert plugin.lab.controller.sandboxes() == []


@pytest.mark.parametrize(
    "method",
    ["CreateEndpoint", "Join", "EndpointOperInfo", "ProgramExternalConnectivity", "RevokeExternalConnectivity", "Leave", "DeleteEndpoint"],
)
async def test_an_endpoint_is_one_of_its_own_network(plugin: Plugin, method: str) -> None:
    await plugin.network()
    await plugin.network(ELSEWHERE, "10.51.0.0/24")
    await plugin.endpoint()
    await plugin.join()
    before = dict(plugin.lab.store.data)
    body = {"EndpointID": ENDPOINT, "SandboxKey": KEY, "Interface": {}, "Options": {}}

    said = await plugin.refused(NET + method, {**body, "NetworkID": ELSEWHERE})

    assert said == f"endpoint {'e' * 12} is not on network {'b' * 12}"
    assert plugin.lab.store.data == before
    await plugin.ok(NET + method, {**body, "NetworkID": NETWORK})


async def test_what_is_on_a_network_that_the_engine_has_forgotten_can_be_taken_away(plugin: Plugin) -> None:
    await plugin.network()
    await plugin.endpoint()
    await plugin.join()
    assert "has active endpoints" in await plugin.refused(NET + "DeleteNetwork", {"NetworkID": NETWORK})

    await plugin.ok(NET + "Leave", {"NetworkID": NETWORK, "EndpointID": ENDPOINT})

    assert plugin.lab.controller.sandboxes() == []


async def test_the_engine_is_told_where_it_has_to_give_no_way_out(plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks for an IPv4 gateway, and gives a container without one a bridge of its own."""
    await plugin.lab.network("six", ipv4=False, ipv6=True, pools=(PoolConfig(subnet="fd50::/64"),))
    await plugin.ok(NET + "CreateNetwork", {"NetworkID": NETWORK, "Options": {"com.docker.network.generic": {"netplug.network": "six"}}})
    await plugin.endpoint()
    joined = await plugin.join()
    assert (joined["Gateway"], joined["GatewayIPv6"], joined["DisableGatewayService"]) == ("", "fd50::1", True)
    monkeypatch.setattr(plugin.lab.controller, "leads_out", lambda network: False)
    assert "DisableGatewayService" not in await plugin.join(), "an overlay has none of its own"


async def test_a_network_that_is_there_is_joined_as_it_is(plugin: Plugin) -> None:
    await plugin.lab.network("plain")
    both = (PoolConfig(subnet="10.51.0.0/24"), PoolConfig(subnet="fd51::/64"))
    await plugin.lab.network("closed", internal=True, ipv6=True, pools=both)
    before = dict(plugin.lab.store.data)

    def joining(name: str, **options: bool) -> dict[str, Any]:
        asked = {f"com.docker.network.{key}": value for key, value in options.items()}
        return {"NetworkID": NETWORK, "Options": {**asked, "com.docker.network.generic": {"netplug.network": name}}}

    for option, word in (("internal", "--internal"), ("enable_ipv6", "--ipv6")):
        said = await plugin.refused(NET + "CreateNetwork", joining("plain", **{option: True}))
        assert said == f"netplug.network=plain is there already, and was made without {word}: leave that away"
    assert plugin.lab.store.data == before
    await plugin.ok(NET + "CreateNetwork", joining("plain", enable_ipv6=False))
    await plugin.ok(NET + "CreateNetwork", {**joining("closed", internal=True, enable_ipv6=True), "NetworkID": ELSEWHERE})


async def test_an_engine_that_has_started_anew_removes_a_network_with_what_was_begun_on_it(plugin: Plugin) -> None:
    """But not if it may be on another of its networks that is the same here."""
    await plugin.network()
    await plugin.ok(
        NET + "CreateNetwork", {"NetworkID": ELSEWHERE, "Options": {"com.docker.network.generic": {"netplug.network": NETWORK}}}
    )
    await plugin.endpoint()
    await plugin.ok("Plugin.Activate")
    await plugin.ok(NET + "DeleteNetwork", {"NetworkID": ELSEWHERE})
    assert [endpoint.id for endpoint in plugin.lab.controller.endpoints()] == [ENDPOINT]
    await plugin.ok(NET + "DeleteNetwork", {"NetworkID": NETWORK})
    assert plugin.lab.controller.endpoints() == []
    assert NETWORK not in [network.id for network in plugin.lab.controller.networks()]
