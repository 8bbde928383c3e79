"""/networks as Docker's clients know it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from api_fakes import Api, serving

from netplug.errors import NetworkInUse, Unavailable
from netplug.model import PoolConfig


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with serving() as running:
        yield running


async def test_create_inspect_and_remove(api: Api) -> None:
    body = {
        "Name": "demo",
        "CheckDuplicate": True,
        "Driver": "",
        "Internal": True,
        "IPAM": {
            "Driver": "default",
            "Options": {"com.docker.network.ipam.serial": "true"},
            "Config": [
                {"Subnet": "10.9.0.0/16", "IPRange": None, "Gateway": "10.9.0.1", "AuxiliaryAddresses": {"router": "10.9.0.9"}},
            ],
        },
        "Options": {"com.docker.network.driver.mtu": "1400"},
        "Labels": {"a": "b"},
    }
    created = await api.ask("POST", "/v1.47/networks/create", body)
    assert (api.status, created["Warning"]) == (201, "")

    seen = await api.ask("GET", "/v1.47/networks/demo")
    assert (seen["Id"], seen["Name"], seen["Driver"], seen["Scope"], seen["Internal"]) == (created["Id"], "demo", "bridge", "local", True)
    pool = {"Subnet": "10.9.0.0/16", "Gateway": "10.9.0.1", "AuxiliaryAddresses": {"router": "10.9.0.9"}}
    assert seen["IPAM"] == {"Driver": "default", "Options": {"com.docker.network.ipam.serial": "true"}, "Config": [pool]}
    assert (seen["Options"], seen["Labels"], seen["Containers"]) == ({"com.docker.network.driver.mtu": "1400"}, {"a": "b"}, {})
    assert api.controller.network("demo").pools == (PoolConfig(subnet="10.9.0.0/16", gateway="10.9.0.1", auxiliary={"router": "10.9.0.9"}),)

    assert await api.ask("DELETE", "/networks/demo") is None
    assert api.status == 204
    assert await api.ask("GET", "/networks/demo") == {"message": "network demo not found"}
    assert (api.status, api.headers["Content-Type"]) == (404, "application/json")


async def test_nulls_mean_not_said(api: Api) -> None:
    """Compose 1 sends null for every member that it leaves alone."""
    config = {"Subnet": None, "IPRange": None, "Gateway": None, "AuxiliaryAddresses": None}
    body = {"Name": "nulls", "Driver": None, "Options": None, "IPAM": {"Driver": "default", "Config": [config]}, "Labels": None}
    await api.ask("POST", "/networks/create", body)
    assert (api.status, api.controller.network("nulls").pools) == (201, (PoolConfig(subnet=""),))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "invalid JSON: got EOF while reading request body"),
        (b"[]", "invalid JSON: the request body must be an object"),
        ({"Name": 7}, "invalid JSON: Name: expected str, got int"),
        ({"Name": "x", "IPAM": {"Config": [{"Subnet": 3}]}}, "invalid JSON: IPAM.Config[0].Subnet: expected str, got int"),
        ({"Name": "x", "EnableIPv4": False}, "IPv4 or IPv6 must be enabled"),
        (
            {"Name": "x", "Options": {"com.docker.network.enable_ipv6": "yes"}},
            'driver-opt "com.docker.network.enable_ipv6" is not a valid bool',
        ),
        ({"Name": "x", "ConfigOnly": True}, "configuration-only networks are not supported by this daemon"),
        ({"Name": "x", "Ingress": True}, "ingress networks are not supported by this daemon"),
    ],
)
async def test_bad_bodies_are_refused(api: Api, body: object, message: str) -> None:
    before = api.controller.networks()
    answer = await api.ask("POST", "/networks/create", body)
    assert (api.status, answer) == (400, {"message": message})
    assert api.controller.networks() == before


async def test_broken_json_is_named(api: Api) -> None:
    answer = await api.ask("POST", "/networks/create", b"{")
    assert api.status == 400
    assert answer["message"].startswith("invalid JSON: ")


async def test_a_name_that_is_taken(api: Api) -> None:
    await api.ask("POST", "/networks/create", {"Name": "demo"})
    answer = await api.ask("POST", "/networks/create", {"Name": "demo"})
    assert (api.status, answer) == (409, {"message": "network with name demo already exists"})


@pytest.mark.parametrize("form", ["list", "object"])
async def test_lists_honour_filters_in_both_forms(api: Api, form: str) -> None:
    """Compose removes every network that the list answers: one too many is somebody's network lost."""
    await api.ask("POST", "/networks/create", {"Name": "mine", "Labels": {"project": "a"}})
    await api.ask("POST", "/networks/create", {"Name": "other", "Labels": {"project": "b"}})
    wanted = ["project=a"] if form == "list" else {"project=a": True}
    found = await api.ask("GET", "/networks", filters={"label": wanted})
    assert [network["Name"] for network in found] == ["mine"]


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, {"bridge", "host", "none", "demo", "demo2"}),
        ({"name": ["demo"]}, {"demo", "demo2"}),
        ({"name": ["^demo$"]}, {"demo"}),
        ({"name": ["[broken"]}, set()),
        ({"driver": ["host"]}, {"host"}),
        ({"type": ["custom"]}, {"demo", "demo2"}),
        ({"type": ["builtin"]}, {"bridge", "host", "none"}),
        ({"scope": ["swarm"]}, set()),
        ({"label": ["a"]}, {"demo"}),
        ({"label": ["a=b", "c"]}, set()),
        ({"dangling": ["true"]}, {"demo2"}),
        ({"dangling": ["false"]}, {"bridge", "host", "none", "demo"}),
    ],
)
async def test_filters(api: Api, filters: dict[str, list[str]], names: set[str]) -> None:
    await api.ask("POST", "/networks/create", {"Name": "demo", "Labels": {"a": "b"}})
    await api.ask("POST", "/networks/create", {"Name": "demo2"})
    await api.run("web", "demo")
    assert {network["Name"] for network in await api.ask("GET", "/networks", filters=filters)} == names


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"colour": ["red"]}, "invalid filter 'colour'"),
        ({"type": ["odd"]}, "invalid filter: 'type'='odd'"),
        ({"dangling": ["perhaps"]}, 'invalid value for filter \'dangling\', must be "true" (or "1"), or "false" (or "0")'),
    ],
)
async def test_filters_that_there_are_not(api: Api, filters: dict[str, list[str]], message: str) -> None:
    assert await api.ask("GET", "/networks", filters=filters) == {"message": message}
    assert api.status == 400


async def test_connect_and_disconnect(api: Api) -> None:
    await api.ask("POST", "/networks/create", {"Name": "demo"})
    identity = await api.run("web")
    settings = {"IPAMConfig": {"IPv4Address": "172.20.0.9"}, "Aliases": ["www"], "MacAddress": "02:42:00:00:00:09", "GwPriority": 3}
    assert await api.ask("POST", "/networks/demo/connect", {"Container": "web", "EndpointConfig": settings}) is None
    assert api.status == 200

    members = (await api.ask("GET", "/networks/demo"))["Containers"]
    assert {key: members[identity][key] for key in ("Name", "MacAddress", "IPv4Address", "IPv6Address")} == {
        "Name": "web",
        "MacAddress": "02:42:00:00:00:09",
        "IPv4Address": "172.20.0.9/16",
        "IPv6Address": "",
    }
    seen = (await api.ask("GET", "/containers/web/json"))["NetworkSettings"]["Networks"]
    assert sorted(seen) == ["bridge", "demo"]
    assert (seen["demo"]["IPAddress"], seen["demo"]["IPPrefixLen"], seen["demo"]["Aliases"], seen["demo"]["GwPriority"]) == (
        "172.20.0.9",
        16,
        ["www"],
        3,
    )

    answer = await api.ask("DELETE", "/networks/demo")
    assert api.status == 403
    assert "has active endpoints" in answer["message"]

    await api.ask("POST", "/networks/demo/disconnect", {"Container": identity[:12], "Force": False})
    assert (api.status, api.controller.endpoints(network=api.controller.network("demo").id)) == (200, [])


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"Container": "nobody"}, 404, "No such container: nobody"),
        ({}, 400, "no container given: the body needs a member Container, a name or an id"),
        ({"Container": "web", "EndpointConfig": {"IPAMConfig": {"IPv6Address": "10.0.0.1"}}}, 400, "invalid IPv6 address: 10.0.0.1"),
        ({"Container": "web", "EndpointConfig": {"IPAMConfig": {"IPv4Address": "fd00::1"}}}, 400, "invalid IPv4 address: fd00::1"),
        (
            {"Container": "web", "EndpointConfig": {"IPAMConfig": {"LinkLocalIPs": ["169.254.3.4"]}}},
            400,
            "link-local addresses are not supported by this daemon",
        ),
    ],
)
async def test_connects_that_make_no_sense(api: Api, body: object, status: int, message: str) -> None:
    await api.run("web")
    answer = await api.ask("POST", "/networks/bridge/connect", body)
    assert (api.status, answer) == (status, {"message": message})


async def test_both_ip_versions_are_shown(api: Api) -> None:
    config = [
        {"Subnet": "fd00:7::/64", "Gateway": "fd00:7::1", "AuxiliaryAddresses": {"router": "fd00:7::9"}},
        {"Subnet": "10.9.0.0/16", "Gateway": "10.9.0.1"},
    ]
    await api.ask("POST", "/networks/create", {"Name": "demo", "EnableIPv6": True, "IPAM": {"Config": config}})
    identity = await api.run("web")
    settings = {"IPAMConfig": {"IPv6Address": "FD00:7:0::B"}}
    await api.ask("POST", "/networks/demo/connect", {"Container": "web", "EndpointConfig": settings})

    seen = await api.ask("GET", "/networks/demo")
    assert (seen["EnableIPv4"], seen["EnableIPv6"], seen["IPAM"]["Config"]) == (True, True, config)
    assert (seen["Containers"][identity]["IPv4Address"], seen["Containers"][identity]["IPv6Address"]) == ("10.9.0.2/16", "fd00:7::b/64")
    endpoint = (await api.ask("GET", "/containers/web/json"))["NetworkSettings"]["Networks"]["demo"]
    assert (endpoint["IPAMConfig"], endpoint["GlobalIPv6Address"], endpoint["GlobalIPv6PrefixLen"], endpoint["IPv6Gateway"]) == (
        {"IPv6Address": "fd00:7::b"},
        "fd00:7::b",
        64,
        "fd00:7::1",
    )


async def test_a_network_without_ipv4(api: Api) -> None:
    await api.ask("POST", "/networks/create", {"Name": "six", "EnableIPv4": False, "EnableIPv6": True})
    seen = await api.ask("GET", "/networks/six")
    assert (seen["EnableIPv4"], seen["EnableIPv6"], [":" in pool["Subnet"] for pool in seen["IPAM"]["Config"]]) == (False, True, [True])
    await api.run("web", "six")
    endpoint = (await api.ask("GET", "/containers/web/json"))["NetworkSettings"]["Networks"]["six"]
    assert (endpoint["IPAddress"], endpoint["IPPrefixLen"], endpoint["Gateway"], endpoint["GlobalIPv6PrefixLen"]) == ("", 0, "", 64)


async def test_a_subnet_of_an_ip_version_that_is_off_is_left_out_and_said(api: Api) -> None:
    """Docker leaves it out too, without a word."""
    config = [{"Subnet": "10.9.0.0/16"}, {"Subnet": "fd00:7::/64"}]
    answer = await api.ask("POST", "/networks/create", {"Name": "demo", "IPAM": {"Config": config}})
    assert answer["Warning"] == "subnet fd00:7::/64 has no effect: IPv6 is not enabled for this network"
    assert [pool.subnet for pool in api.controller.network("demo").pools] == ["10.9.0.0/16"]


async def test_the_daemon_s_options_for_new_networks(api: Api) -> None:
    """What the request says goes first; whether it has IPv6 may be an option as well."""
    api.settings.default_network_options["bridge"] = {"a": "daemon", "b": "daemon", "com.docker.network.enable_ipv6": "true"}
    await api.ask("POST", "/networks/create", {"Name": "open", "Options": {"a": "mine"}})
    await api.ask("POST", "/networks/create", {"Name": "said", "EnableIPv6": False})
    await api.ask("POST", "/networks/create", {"Name": "other", "Driver": "macvlan"})
    networks = {name: api.controller.network(name) for name in ("open", "said", "other")}
    assert {name: network.ipv6 for name, network in networks.items()} == {"open": True, "said": False, "other": False}
    assert networks["open"].options == {"a": "mine", "b": "daemon", "com.docker.network.enable_ipv6": "true"}
    assert networks["said"].options == {"a": "daemon", "b": "daemon"}
    assert networks["other"].options == {}


async def test_prune_takes_what_nobody_is_on(api: Api) -> None:
    for name in ("used", "unused", "kept"):
        await api.ask("POST", "/networks/create", {"Name": name, "Labels": {"keep": "yes"} if name == "kept" else {}})
    await api.run("web", "used")
    assert await api.ask("POST", "/networks/prune", filters={"label!": ["keep"]}) == {"NetworksDeleted": ["unused"]}
    assert await api.ask("POST", "/networks/prune", filters={"until": ["1h"]}) == {"NetworksDeleted": []}
    assert await api.ask("POST", "/networks/prune") == {"NetworksDeleted": ["kept"]}
    assert {network.name for network in api.controller.networks()} == {"bridge", "host", "none", "used"}


@pytest.mark.parametrize("query", [{}, {"dryrun": "1"}])
async def test_prune_goes_on_past_what_has_to_stay(api: Api, monkeypatch: pytest.MonkeyPatch, query: dict[str, str]) -> None:
    """A network that is in use on another node, and one of which nobody can tell as the cluster is away."""
    errors = {"busy": NetworkInUse("in use on another node"), "unsure": Unavailable("etcd does not answer")}
    for name in ("first", *errors, "last"):
        await api.ask("POST", "/networks/create", {"Name": name})
    for method in ("remove_network", "plan_network_removal"):
        original = getattr(api.controller, method)

        async def refuse(reference: str, original: Callable[[str], Awaitable[object]] = original) -> object:
            if (error := errors.get(api.controller.network(reference).name)) is not None:
                raise error
            return await original(reference)

        monkeypatch.setattr(api.controller, method, refuse)
    assert (await api.ask("POST", "/networks/prune", **query))["NetworksDeleted"] == ["first", "last"]


async def test_explain_tells_what_was_done(api: Api) -> None:
    answer = await api.ask("POST", "/networks/create", {"Name": "demo"}, explain="1")
    bridge = f"br-{answer['Id'][:12]}"
    assert (api.status, answer["Explain"]) == (201, [f"ip link set {bridge} up"])
    await api.run("web")
    answer = await api.ask("POST", "/networks/demo/connect", {"Container": "web"}, explain="1")
    endpoint = api.controller.endpoints(network=api.controller.network("demo").id)[0]
    assert (api.status, answer) == (200, {"Explain": [f"ip link set veth{endpoint.id[:7]} up"]})
    await api.ask("POST", "/networks/demo/disconnect", {"Container": "web"})
    assert await api.ask("DELETE", "/networks/demo", explain="1") == {"Explain": [f"ip link set {bridge} up"]}
    assert api.status == 200


async def test_a_dry_run_changes_nothing(api: Api) -> None:
    answer = await api.ask("POST", "/networks/create", {"Name": "demo"}, dryrun="1")
    assert (api.status, answer) == (201, {"Id": "", "Warning": "", "Explain": ["ip link set br-demo up"]})
    assert {network.name for network in api.controller.networks()} == {"bridge", "host", "none"}

    await api.ask("POST", "/networks/create", {"Name": "demo"})
    await api.run("web")
    wanted = {"Container": "web", "EndpointConfig": {"IPAMConfig": {"IPv4Address": "172.20.0.9"}}}
    assert await api.ask("POST", "/networks/demo/connect", wanted, dryrun="1") == {"Explain": ["ip link set demo-172.20.0.9 up"]}
    assert api.controller.endpoints(network=api.controller.network("demo").id) == []
    assert await api.ask("POST", "/networks/bridge/disconnect", {"Container": "web"}, dryrun="1") == {
        "Explain": ["ip link set bridge-gone up"]
    }
    assert len(api.controller.endpoints()) == 1
    assert await api.ask("POST", "/networks/prune", dryrun="1") == {"NetworksDeleted": ["demo"], "Explain": ["ip link set br-demo up"]}
    assert await api.ask("DELETE", "/networks/demo", dryrun="1") == {"Explain": ["ip link set br-demo up"]}
    assert api.controller.network("demo").name == "demo"
