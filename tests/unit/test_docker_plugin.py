"""The plugin protocol over its socket, with doubles behind the controller: what comes in any order, twice, in pieces or as nonsense."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from netplug.engines.server import PluginServer
from netplug.errors import Conflict
from netplug.plan import Announce, Publish, Veth
from tests.unit.doubles import MemoryStore
from tests.unit.test_controller import Lab, free_port

NETWORK, ELSEWHERE, ENDPOINT, OTHER = "a" * 64, "b" * 64, "e" * 64, "f" * 64
KEY = "/run/docker/netns/0123456789ab"
NET, IPAM = "NetworkDriver.", "IpamDriver."


class Plugin:
    """A client as the engine is one: a POST without Content-Type each."""

    def __init__(self, lab: Lab, path: Path) -> None:
        self.lab, self.path = lab, path

    async def raw(self, request: bytes) -> tuple[int, Any]:
        reader, writer = await asyncio.open_unix_connection(self.path)
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        body = await reader.readexactly(length)
        writer.close()
        await writer.wait_closed()
        return int(head.split()[1]), json.loads(body)

    async def call(self, method: str, body: Any = None) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        head = f"POST /{method} HTTP/1.1\r\nHost: plugin\r\nContent-Length: {len(data)}\r\n\r\n"
        return await self.raw(head.encode() + data)

    async def ok(self, method: str, body: Any = None) -> Any:
        status, answer = await self.call(method, body)
        assert status == 200, answer
        return answer

    async def refused(self, method: str, body: Any = None) -> str:
        status, answer = await self.call(method, body)
        assert status in (400, 500), answer
        assert list(answer) == ["Err"]
        return str(answer["Err"])

    async def pool(self, subnet: str = "10.50.0.0/24", **fields: Any) -> str:
        return str((await self.ok(IPAM + "RequestPool", {"AddressSpace": "netplug", "Pool": subnet, **fields}))["PoolID"])

    async def network(self, identity: str = NETWORK, subnet: str = "10.50.0.0/24", **options: str) -> str:
        pool = await self.pool(subnet)
        data = {"AddressSpace": "netplug", "Pool": subnet, "Gateway": subnet.replace(".0/", ".1/")}
        options = {"com.docker.network.generic": options}
        await self.ok(NET + "CreateNetwork", {"NetworkID": identity, "Options": options, "IPv4Data": [data], "IPv6Data": None})
        return pool

    async def endpoint(self, identity: str = ENDPOINT, **interface: str) -> Any:
        return await self.ok(
            NET + "CreateEndpoint", {"NetworkID": NETWORK, "EndpointID": identity, "Interface": interface or None, "Options": None}
        )

    async def join(self, identity: str = ENDPOINT, key: str = KEY) -> Any:
        return await self.ok(NET + "Join", {"NetworkID": NETWORK, "EndpointID": identity, "SandboxKey": key, "Options": {}})


@pytest.fixture
async def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Plugin]:
    monkeypatch.setattr("netplug.kernel.routes.host_subnets", lambda beside=(), known=(): [])
    monkeypatch.setattr("netplug.kernel.arrivals.present", lambda name: True)
    lab = Lab(tmp_path)
    server = PluginServer()
    await server.listen(str(tmp_path / "plugins" / "netplug.sock"))
    await server.serve(lab.controller, lab.store)
    yield Plugin(lab, tmp_path / "plugins" / "netplug.sock")
    await server.close()
    lab.core.ports.release_all()
    lab.journal.close()


async def test_what_the_plugin_is(plugin: Plugin) -> None:
    assert (await plugin.ok("Plugin.Activate"))["Implements"] == ["NetworkDriver", "IpamDriver"]
    assert await plugin.ok(NET + "GetCapabilities") == {"Scope": "local", "ConnectivityScope": "local"}
    assert await plugin.ok(IPAM + "GetCapabilities") == {"RequiresMACAddress": False, "RequiresRequestReplay": False}
    assert set(await plugin.ok(IPAM + "GetDefaultAddressSpaces")) == {"LocalDefaultAddressSpace", "GlobalDefaultAddressSpace"}
    assert await plugin.ok(NET + "DiscoverNew", {"DiscoveryType": 1, "DiscoveryData": {"Address": "x"}}) == {}
    assert plugin.path.stat().st_mode & 0o777 == 0o600


ASK = r"""
import socket
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect("netplug.sock")
    connection.sendall(b"POST /Plugin.Activate HTTP/1.1\r\nHost: plugin\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    while said := connection.recv(4096):
        print(said.decode(), end="")
"""


async def test_the_socket_is_roots_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its callers' credentials, whatever its mode says by now."""
    # An ordinary socket: a link below /proc/PID/fd nobody else can follow.
    monkeypatch.setattr("netplug.engines.listener._FIRST_PID_NAMESPACE", "another")
    server, path = PluginServer(), tmp_path / "plugins" / "netplug.sock"
    await server.listen(str(path))
    path.chmod(0o666)
    argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-I", "-c", ASK]

    asking = await asyncio.create_subprocess_exec(*argv, cwd=path.parent, stdout=asyncio.subprocess.PIPE)
    said = (await asking.communicate())[0].decode()

    assert said.startswith("HTTP/1.1 403 Forbidden\r\n")
    assert json.loads(said.partition("\r\n\r\n")[2]) == {"Err": "the plugin's socket is root's alone"}
    lab = Lab(tmp_path)
    assert await Plugin(lab, path).ok("Plugin.Activate"), "root's own call"
    await server.close()
    lab.journal.close()


async def test_a_method_that_there_is_not_is_not_found(plugin: Plugin) -> None:
    status, answer = await plugin.call(NET + "AllocateNetwork", {})
    assert (status, list(answer)) == (404, ["Err"])


async def test_a_join_that_fails_in_the_kernel_may_be_asked_for_again(plugin: Plugin) -> None:
    await plugin.network()
    await plugin.endpoint()
    join = {"NetworkID": NETWORK, "EndpointID": ENDPOINT, "SandboxKey": KEY, "Options": {}}

    plugin.lab.executor.fail_on = Veth
    assert "the kernel said no" in await plugin.refused(NET + "Join", join)
    assert [sandbox.id for sandbox in plugin.lab.controller.sandboxes()] == [ENDPOINT]

    plugin.lab.executor.fail_on = None
    assert (await plugin.ok(NET + "Join", join))["InterfaceName"]["SrcName"] == f"np{ENDPOINT[:12]}"
    assert any(isinstance(step, Veth) for step in plugin.lab.executor.applied[-1])
    await plugin.ok(NET + "Leave", {"NetworkID": NETWORK, "EndpointID": ENDPOINT})
    assert plugin.lab.controller.sandboxes() == []


async def test_what_is_refused_behind_the_answer_is_said_by_join(plugin: Plugin) -> None:
    await plugin.network()
    join = {"NetworkID": NETWORK, "EndpointID": ENDPOINT, "SandboxKey": KEY, "Options": {}}

    plugin.lab.store.full = True
    await plugin.endpoint()
    assert "the disk is full" in await plugin.refused(NET + "Join", join)
    assert plugin.lab.controller.sandboxes() == []

    plugin.lab.store.full = False
    assert (await plugin.endpoint())["Interface"]["Address"] == "10.50.0.2/24", "nobody has it"
    await plugin.ok(NET + "Join", join)


async def test_neighbours_of_a_running_container_are_told_what_is_news(plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netplug.kernel.arrivals.inside", lambda namespace: (4711, frozenset({"lo", "eth0"})))
    monkeypatch.setattr("netplug.kernel.sockets.ports_at", lambda *place: [])
    monkeypatch.setattr("netplug.controller.furnishing.open_resolver_sockets", lambda sandbox: socket.socketpair())
    await plugin.network()

    async def announced(**interface: str) -> bool:
        reference = {"NetworkID": NETWORK, "EndpointID": ENDPOINT}
        await plugin.endpoint(Address="10.50.0.9/24", **interface)
        await plugin.ok(NET + "Join", {**reference, "SandboxKey": KEY, "Options": {}})
        (endpoint,) = plugin.lab.controller.endpoints()
        assert endpoint.interface == "net1"
        told = any(isinstance(step, Announce) for step in plugin.lab.executor.applied[-1])
        await plugin.ok(NET + "Leave", reference)
        return told

    assert not await announced(), "a MAC that is made from the address is every owner's"
    assert await announced(MacAddress="02:00:00:00:00:01")
    assert await announced(), "the usual one again"
    assert not await announced()


async def test_an_endpoint_from_its_birth_to_its_end(plugin: Plugin) -> None:
    await plugin.network()
    assert await plugin.endpoint() == {"Interface": {"Address": "10.50.0.2/24", "AddressIPv6": "", "MacAddress": "02:42:0a:32:00:02"}}
    joined = await plugin.ok(NET + "Join", {"NetworkID": NETWORK, "EndpointID": ENDPOINT, "SandboxKey": KEY, "Options": {}})
    assert joined == {
        "InterfaceName": {"SrcName": f"np{ENDPOINT[:12]}", "DstPrefix": "eth"},
        "Gateway": "10.50.0.1",
        "GatewayIPv6": "",
    }
    veth = next(step for step in plugin.lab.executor.applied[-1] if isinstance(step, Veth))
    assert (veth.peer_namespace, veth.peer) == ("", f"np{ENDPOINT[:12]}")
    assert all(step.namespace == "" for step in plugin.lab.executor.applied[-1]), "there is no namespace yet"
    (sandbox,) = plugin.lab.controller.sandboxes()
    assert (sandbox.id, sandbox.namespace, sandbox.engine, sandbox.cookie) == ("0123456789ab", KEY, "docker", 0)

    reference = {"NetworkID": NETWORK, "EndpointID": ENDPOINT}
    await plugin.ok(NET + "Leave", reference)
    await plugin.ok(NET + "DeleteEndpoint", reference)
    await plugin.ok(NET + "DeleteNetwork", {"NetworkID": NETWORK})
    assert not plugin.lab.controller.sandboxes()
    assert not plugin.lab.controller.networks()


async def test_only_fields_that_were_empty_are_answered(plugin: Plugin) -> None:
    """The engine takes anything else for an attempt to change them."""
    await plugin.network()
    interface = {"Address": "10.50.0.9/24", "AddressIPv6": "", "MacAddress": "02:00:00:00:00:09"}
    assert await plugin.endpoint(**interface) == {"Interface": {"Address": "", "AddressIPv6": "", "MacAddress": ""}}
    assert plugin.lab.controller.endpoint(ENDPOINT).mac == "02:00:00:00:00:09"


async def test_everything_may_come_twice(plugin: Plugin) -> None:
    """An engine that lost our answer asks again."""
    await plugin.network()
    data = {"AddressSpace": "netplug", "Pool": "10.50.0.0/24", "Gateway": "10.50.0.1/24"}
    assert await plugin.ok(NET + "CreateNetwork", {"NetworkID": NETWORK, "Options": {}, "IPv4Data": [data], "IPv6Data": []}) == {}
    assert await plugin.endpoint() == await plugin.endpoint()
    join = {"NetworkID": NETWORK, "EndpointID": ENDPOINT, "SandboxKey": KEY, "Options": {}}
    assert await plugin.ok(NET + "Join", join) == await plugin.ok(NET + "Join", join)
    external = {"NetworkID": NETWORK, "EndpointID": ENDPOINT, "Options": {"com.docker.network.portmap": _ports(free_port())}}
    for method, body in (
        ("ProgramExternalConnectivity", external),
        ("RevokeExternalConnectivity", join),
        ("Leave", join),
        ("DeleteEndpoint", join),
        ("DeleteNetwork", {"NetworkID": NETWORK}),
    ):
        assert await plugin.ok(NET + method, body) == await plugin.ok(NET + method, body) == {}


async def test_ports_follow_the_engines_word(plugin: Plugin) -> None:
    await plugin.network()
    await plugin.endpoint()
    await plugin.ok(NET + "Join", {"NetworkID": NETWORK, "EndpointID": ENDPOINT, "SandboxKey": KEY, "Options": {}})
    port = free_port()

    options = {"com.docker.network.portmap": _ports(port), "com.docker.network.endpoint.exposedports": [{"Proto": 6, "Port": 80}]}
    await plugin.ok(NET + "ProgramExternalConnectivity", {"NetworkID": NETWORK, "EndpointID": ENDPOINT, "Options": options})
    assert Publish(protocol="tcp", host_port=port, address="10.50.0.2", port=80) in plugin.lab.executor.applied[-1]
    assert str(port) in json.dumps(await plugin.ok(NET + "EndpointOperInfo", {"NetworkID": NETWORK, "EndpointID": ENDPOINT}))

    await plugin.ok(NET + "RevokeExternalConnectivity", {"NetworkID": NETWORK, "EndpointID": ENDPOINT})
    assert plugin.lab.controller.endpoint(ENDPOINT).ports == ()
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", port))


async def test_a_port_that_is_taken_changes_nothing(plugin: Plugin) -> None:
    await plugin.network()
    await plugin.endpoint()
    with socket.socket() as owner:
        owner.bind(("0.0.0.0", 0))
        options = {"com.docker.network.portmap": _ports(owner.getsockname()[1])}
        body = {"NetworkID": NETWORK, "EndpointID": ENDPOINT, "Options": options}
        assert "failed" in await plugin.refused(NET + "ProgramExternalConnectivity", body)
    endpoint = plugin.lab.controller.endpoint(ENDPOINT)
    assert (endpoint.ports, endpoint.gateway_priority) == ((), 0)


async def test_calls_out_of_order(plugin: Plugin) -> None:
    reference = {"NetworkID": NETWORK, "EndpointID": ENDPOINT}
    assert "network aaaaaaaaaaaa not found" in await plugin.refused(NET + "CreateEndpoint", {**reference, "Interface": {}})
    await plugin.network()
    assert "endpoint eeeeeeeeeeee not found" in await plugin.refused(NET + "Join", {**reference, "SandboxKey": KEY})
    assert "endpoint eeeeeeeeeeee not found" in await plugin.refused(NET + "ProgramExternalConnectivity", {**reference, "Options": {}})
    for method in ("Leave", "DeleteEndpoint", "RevokeExternalConnectivity", "EndpointOperInfo"):
        await plugin.ok(NET + method, reference)
    await plugin.endpoint()
    assert "has active endpoints" in await plugin.refused(NET + "DeleteNetwork", {"NetworkID": NETWORK})


async def test_rejected_pools_stay_held_while_the_next_is_asked_for(plugin: Plugin) -> None:
    pools = [await plugin.ok(IPAM + "RequestPool", {"AddressSpace": "netplug", "Pool": "", "V6": False}) for _ in range(3)]
    assert len({pool["Pool"] for pool in pools}) == 3
    again = Lab(plugin.path.parent, plugin.lab.store)
    await again.core.leases.load()
    assert set(again.core.leases.unused()) == {pool["Pool"] for pool in pools}
    again.journal.close()
    for pool in pools:
        await plugin.ok(IPAM + "ReleasePool", {"PoolID": pool["PoolID"]})
    assert (await plugin.ok(IPAM + "RequestPool", {"AddressSpace": "netplug"}))["Pool"] == pools[0]["Pool"]


async def test_addresses_stay_held_until_they_are_given_back(plugin: Plugin) -> None:
    """Whatever becomes of the endpoint that has one, and of the daemon."""
    pool = await plugin.network()
    given = await plugin.ok(IPAM + "RequestAddress", {"PoolID": pool, "Address": "", "Options": None})
    assert given["Address"] == "10.50.0.2/24"
    await plugin.endpoint(Address="10.50.0.2/24")
    await plugin.ok(NET + "DeleteEndpoint", {"NetworkID": NETWORK, "EndpointID": ENDPOINT})
    assert (await plugin.endpoint(OTHER))["Interface"]["Address"] == "10.50.0.3/24"

    await plugin.ok(IPAM + "ReleaseAddress", {"PoolID": pool, "Address": "10.50.0.2"})
    assert (await plugin.ok(IPAM + "RequestAddress", {"PoolID": pool, "Address": ""}))["Address"] == "10.50.0.2/24"


async def test_the_gateway_is_the_pools(plugin: Plugin) -> None:
    pool = await plugin.pool()
    gateway = {"RequestAddressType": "com.docker.network.gateway"}
    assert (await plugin.ok(IPAM + "RequestAddress", {"PoolID": pool, "Options": gateway}))["Address"] == "10.50.0.1/24"
    body = {"PoolID": pool, "Address": "10.50.0.254", "Options": gateway}
    assert (await plugin.ok(IPAM + "RequestAddress", body))["Address"] == "10.50.0.254/24"
    assert "is not in" in await plugin.refused(IPAM + "RequestAddress", {**body, "Address": "10.51.0.1"})


@pytest.mark.parametrize(
    ("method", "body"),
    [
        (NET + "CreateNetwork", b"{"),
        (NET + "CreateNetwork", b"[]"),
        (NET + "CreateNetwork", b'{"NetworkID": 7}'),
        (NET + "CreateNetwork", {}),
        (NET + "CreateNetwork", {"NetworkID": "../../etc"}),
        (NET + "CreateNetwork", {"NetworkID": NETWORK, "IPv4Data": [{"Pool": "x y"}]}),
        (NET + "CreateNetwork", b"\xff\xfe"),
        (NET + "CreateNetwork", b"[" * 100_000),
        (NET + "Join", {"NetworkID": NETWORK, "EndpointID": ENDPOINT, "SandboxKey": "/etc/../passwd"}),
        (NET + "Join", {"NetworkID": NETWORK, "EndpointID": ENDPOINT, "SandboxKey": "x; rm -rf /"}),
        (NET + "Join", {"NetworkID": NETWORK, "EndpointID": "E" * 64, "SandboxKey": KEY}),
        (NET + "CreateEndpoint", {"NetworkID": NETWORK, "EndpointID": ENDPOINT, "Interface": {"Address": "10.50.0.300/24"}}),
        (NET + "CreateEndpoint", {"NetworkID": NETWORK, "EndpointID": ENDPOINT, "Interface": {"Address": "10.99.0.3/24"}}),
        (NET + "CreateEndpoint", {"NetworkID": NETWORK, "EndpointID": ENDPOINT, "Interface": {"MacAddress": "ff:ff:ff:ff:ff:ff"}}),
        (NET + "ProgramExternalConnectivity", {"NetworkID": NETWORK, "EndpointID": ENDPOINT, "Options": {"com.docker.network.portmap": 3}}),
        (
            NET + "ProgramExternalConnectivity",
            {"NetworkID": NETWORK, "EndpointID": ENDPOINT, "Options": {"com.docker.network.portmap": [{"Proto": 1, "Port": 80}]}},
        ),
        (IPAM + "RequestPool", {"AddressSpace": "elsewhere"}),
        (IPAM + "RequestPool", {"AddressSpace": "netplug", "Pool": "10.0.0.1/33"}),
        (IPAM + "RequestPool", {"AddressSpace": "netplug", "SubPool": "10.0.0.0/24"}),
        (IPAM + "RequestAddress", {"PoolID": "nowhere"}),
        (IPAM + "RequestAddress", {"PoolID": "nowhere", "Address": "::g"}),
        (IPAM + "ReleaseAddress", {"PoolID": "nowhere", "Address": "x"}),
    ],
)
async def test_nonsense_gets_one_sentence_and_changes_nothing(plugin: Plugin, method: str, body: Any) -> None:
    await plugin.network()
    before = dict(plugin.lab.store.data)

    if method == NET + "CreateNetwork" and isinstance(body, dict) and body.get("NetworkID") == NETWORK:
        body = {**body, "NetworkID": OTHER}
    said = await plugin.refused(method, body)

    assert said
    assert "\n" not in said
    assert len(said) < 400
    assert plugin.lab.store.data == before
    assert await plugin.ok("Plugin.Activate")


async def test_a_question_that_lost_its_body(plugin: Plugin) -> None:
    assert "has no body" in await plugin.refused(NET + "CreateNetwork")


async def test_unknown_fields_are_passed_over(plugin: Plugin) -> None:
    assert await plugin.ok(IPAM + "RequestPool", {"AddressSpace": "netplug", "Pool": "10.50.0.0/24", "Exclude": ["10.0.0.0/8"], "New": {}})


async def test_partial_bodies_leave_the_others_alone(plugin: Plugin) -> None:
    """The engine dies in the middle of a call."""
    _, writer = await asyncio.open_unix_connection(plugin.path)
    writer.write(b'POST /NetworkDriver.CreateNetwork HTTP/1.1\r\nHost: plugin\r\nContent-Length: 1000\r\n\r\n{"NetworkID": "')
    await writer.drain()
    assert await plugin.ok("Plugin.Activate")
    writer.close()
    await writer.wait_closed()
    await plugin.network()
    assert len(plugin.lab.controller.networks()) == 1


async def test_no_post_and_no_end(plugin: Plugin) -> None:
    assert (await plugin.raw(b"GET /Plugin.Activate HTTP/1.1\r\nHost: plugin\r\n\r\n"))[0] == 400
    status, answer = await plugin.call("Plugin.Activate", b" " * ((1 << 20) + 1))
    assert (status, "larger than" in answer["Err"]) == (400, True)


async def test_calls_wait_until_the_daemon_is_ready(tmp_path: Path) -> None:
    """The socket is there first, so that an engine which starts meanwhile is not turned away."""
    lab, server = Lab(tmp_path), PluginServer()
    await server.listen(str(tmp_path / "early.sock"))
    plugin = Plugin(lab, tmp_path / "early.sock")
    assert await plugin.ok("Plugin.Activate")
    assert await plugin.ok(NET + "GetCapabilities")
    waiting = asyncio.create_task(plugin.call(NET + "DiscoverNew", {}))
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done
    await server.serve(lab.controller, MemoryStore())
    assert (await waiting)[0] == 200
    await server.close()
    assert not (tmp_path / "early.sock").exists()
    lab.journal.close()


async def test_two_daemons_do_not_fight_for_the_path(plugin: Plugin) -> None:
    with pytest.raises(Conflict, match="another daemon answers there"):
        await PluginServer().listen(str(plugin.path))
    assert await plugin.ok("Plugin.Activate")


async def test_the_socket_of_a_dead_daemon_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead.sock"))
    server = PluginServer()
    await server.listen(str(tmp_path / "dead.sock"))
    await server.close()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(Conflict, match="no socket"):
        await PluginServer().listen(str(tmp_path / "file"))


def _ports(port: int) -> list[dict[str, Any]]:
    return [{"Proto": 6, "IP": "", "Port": 80, "HostIP": "", "HostPort": port, "HostPortEnd": port}]
