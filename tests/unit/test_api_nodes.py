"""/netplug/nodes, and what a cluster changes in Docker's own routes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from api_fakes import Api, serving

from netplug.model import Endpoint, Network, new_id, now


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with serving(cluster=True) as running:
        yield running


@pytest.fixture
async def demo(api: Api) -> Network:
    """A network of the cluster, with `db` on the node n2."""
    network = Network(id=new_id(), name="demo", driver="overlay", created=now(), scope="global", vni=4096)
    api.controller.found[network.id] = network
    db = {"id": "d" * 64, "container_name": "db", "address": "10.0.0.9/24", "mac": "02:42:0a:00:00:09", "node": "n2"}
    api.controller.remote.append(Endpoint(network=network.id, sandbox="e" * 64, created=now(), **db))
    return network


async def test_ls(api: Api) -> None:
    answer = await api.ask("GET", "/netplug/nodes")
    assert [{key: value for key, value in node.items() if key != "Started"} for node in answer["Nodes"]] == [
        {"Name": "n1", "Status": "Ready", "Address": "192.0.2.1", "Version": "0.1.0", "Self": True},
        {"Name": "n2", "Status": "Down", "Address": "192.0.2.2", "Version": "0.1.0", "Self": False},
    ]
    assert answer["Warnings"] == []
    found = await api.ask("GET", "/netplug/nodes", filters={"name": ["n2"]})
    assert [node["Name"] for node in found["Nodes"]] == ["n2"]
    assert await api.ask("GET", "/netplug/nodes", filters={"colour": ["red"]}) == {"message": "invalid filter 'colour'"}


async def test_ls_while_the_cluster_is_away(api: Api) -> None:
    """What is known is shown, with the reason why it may be old."""
    assert api.nodes is not None
    api.nodes.trouble = "etcd does not answer"
    answer = await api.ask("GET", "/netplug/nodes")
    assert (len(answer["Nodes"]), answer["Warnings"]) == (2, ["etcd does not answer"])


async def test_inspect(api: Api, demo: Network) -> None:
    node = await api.ask("GET", "/netplug/nodes/n2")
    assert (node["Name"], node["Identity"], node["Endpoints"], node["Networks"]) == ("n2", "id2", 1, ["demo"])
    assert await api.ask("GET", "/netplug/nodes/n3") == {"message": "No such node: n3"}
    assert api.status == 404


async def test_remove(api: Api) -> None:
    assert await api.ask("DELETE", "/netplug/nodes/n2", dryrun="1") == {"Explain": []}
    assert api.status == 200
    assert await api.ask("DELETE", "/netplug/nodes/n2") is None
    assert api.status == 204
    assert await api.ask("DELETE", "/netplug/nodes/n2", explain="1") == {"message": "No such node: n2"}


@pytest.mark.parametrize("query", [{}, {"dryrun": "1"}])
async def test_a_living_node_is_not_removed(api: Api, query: dict[str, str]) -> None:
    assert api.nodes is not None
    api.nodes.alive.add("n2")
    answer = await api.ask("DELETE", "/netplug/nodes/n2", **query)
    assert (api.status, answer) == (409, {"message": "node n2 is alive: stop its daemon first, or use --force"})
    await api.ask("DELETE", "/netplug/nodes/n2", force="1", **query)
    assert (api.status, "n2" in api.nodes.found) == ((200, True) if query else (204, False))


async def test_this_node_is_not_removed(api: Api) -> None:
    answer = await api.ask("DELETE", "/netplug/nodes/n1", dryrun="1", force="1")
    assert (api.status, answer) == (409, {"message": "node n1 is this one: remove it from another node"})


@pytest.mark.parametrize(("method", "path"), [("GET", "/netplug/nodes"), ("GET", "/netplug/nodes/n1"), ("DELETE", "/netplug/nodes/n1")])
async def test_without_a_cluster(method: str, path: str) -> None:
    async with serving() as api:
        answer = await api.ask(method, path)
        sentence = "this host is in no cluster: start the daemon with --store etcd://HOST:PORT and --advertise ADDRESS"
        assert (api.status, answer) == (503, {"message": sentence})


async def test_a_network_names_endpoints_of_other_nodes_by_their_ids(api: Api, demo: Network) -> None:
    """As Docker 20.10 does."""
    seen = await api.ask("GET", "/networks/demo")
    db = {"Name": "db", "EndpointID": "d" * 64, "MacAddress": "02:42:0a:00:00:09", "IPv4Address": "10.0.0.9/24", "IPv6Address": ""}
    assert (seen["Scope"], seen["Containers"]) == ("global", {f"ep-{'d' * 64}": db})
    assert [network["Containers"] for network in await api.ask("GET", "/networks", filters={"scope": ["global"]})] == [{}]
    assert await api.ask("GET", "/networks", filters={"scope": ["swarm"]}) == []


async def test_the_way_out_is_shown_as_what_it_is(api: Api) -> None:
    """Among the members of its own network, and nowhere else; the ports that it carries are the container's."""
    since = now()
    identity = await api.run("web", HostConfig={"NetworkMode": "bridge", "PortBindings": {"80/tcp": [{"HostPort": "8080"}]}})
    network = Network(id=new_id(), name="netplug_gwbridge", driver="bridge", created=now(), predefined=True)
    api.controller.found[network.id] = network
    (endpoint,) = api.controller.endpoints(sandbox=identity)
    api.controller.plugged[endpoint.id] = endpoint = Endpoint(
        id=endpoint.id, network=network.id, sandbox=identity, created=since, container_name="web", ports=endpoint.ports, implied=True
    )
    assert (await api.ask("GET", "/networks/netplug_gwbridge"))["Containers"][identity]["Name"] == f"gateway_{identity[:12]}"
    seen = (await api.ask("GET", "/containers/web/json"))["NetworkSettings"]
    assert (list(seen["Networks"]), list(seen["Ports"])) == (["bridge"], ["80/tcp"])
    (line,) = await api.ask("GET", "/containers/json")
    assert (list(line["NetworkSettings"]["Networks"]), line["Ports"][0]["PublicPort"]) == (["bridge"], 8080)


@pytest.mark.parametrize(
    ("driver", "scope", "status", "message"),
    [
        ("overlay", "local", 403, "cannot downgrade network scope for overlay networks"),
        ("overlay", "swarm", 400, "invalid scope swarm: overlay networks are global"),
        ("bridge", "global", 400, "invalid scope global: bridge networks are local"),
        ("bridge", "nope", 400, "invalid scope nope: bridge networks are local"),
    ],
)
async def test_a_scope_that_the_driver_has_not(api: Api, driver: str, scope: str, status: int, message: str) -> None:
    answer = await api.ask("POST", "/networks/create", {"Name": "demo", "Driver": driver, "Scope": scope})
    assert (api.status, answer) == (status, {"message": message})


async def test_info(api: Api) -> None:
    assert "ClusterStore" not in await api.ask("GET", "/info")
    api.settings.store, api.settings.advertise = "etcd://192.0.2.9:2379", "eth0"
    answer = await api.ask("GET", "/info")
    assert (answer["ClusterStore"], answer["ClusterAdvertise"]) == ("etcd://192.0.2.9:2379", "eth0")
