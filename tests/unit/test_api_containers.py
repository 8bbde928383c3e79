"""/containers without their streams: life, list, inspect, wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from api_fakes import Api, eventually, serving

from netplug.runtime.model import ExitStatus


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with serving() as running:
        yield running


async def create(api: Api, body: dict[str, Any], **query: str) -> Any:
    return await api.ask("POST", "/v1.47/containers/create", {"Image": "busybox", **body}, **query)


async def test_life(api: Api) -> None:
    await create(
        api, {"Cmd": "top", "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": ""}]}}, "ExposedPorts": {"81/tcp": {}}}, name="web"
    )
    seen = await api.ask("GET", "/containers/web/json")
    assert (seen["Name"], seen["Path"], seen["Args"]) == ("/web", "top", [])
    assert (seen["State"]["Status"], seen["State"]["Running"], seen["State"]["StartedAt"]) == ("created", False, "0001-01-01T00:00:00Z")
    assert seen["NetworkSettings"]["Ports"] == {}
    assert seen["NetworkSettings"]["Networks"]["bridge"]["NetworkID"] == api.controller.network("bridge").id
    assert await api.ask("GET", "/containers/json") == []

    assert await api.ask("POST", "/containers/web/start") is None
    assert api.status == 204
    await api.ask("POST", "/containers/web/start")
    assert api.status == 304

    seen = await api.ask("GET", "/containers//web/json")
    settings = seen["NetworkSettings"]
    assert (seen["State"]["Running"], seen["State"]["Pid"]) == (True, 4242)
    assert settings["Ports"] == {"81/tcp": None, "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "49153"}]}
    assert (settings["IPAddress"], settings["IPPrefixLen"], settings["Gateway"]) == ("172.17.0.2", 16, "172.17.0.1")
    assert settings["SandboxKey"] == f"/run/n/{seen['Id'][:12]}"
    assert seen["HostConfig"]["PortBindings"] == {"80/tcp": [{"HostIp": "", "HostPort": ""}]}
    assert seen["LogPath"] == f"/var/lib/netplug/containers/{seen['Id']}/log"

    line = (await api.ask("GET", "/containers/json"))[0]
    assert (line["Names"], line["Command"], line["State"], line["Status"]) == (["/web"], "top", "running", "Up Less than a second")
    assert line["Ports"] == [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 49153, "Type": "tcp"},
        {"PrivatePort": 81, "Type": "tcp"},
    ]
    assert line["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] == "172.17.0.2"

    assert await api.ask("DELETE", "/containers/web") == {"message": "cannot remove container web: container is running"} | {
        "message": f"cannot remove container {seen['Id']}: container is running"
    }
    assert api.status == 409
    await api.ask("POST", "/containers/web/stop", t="1")
    assert api.status == 204
    await api.ask("POST", "/containers/web/stop")
    assert api.status == 304
    line = (await api.ask("GET", "/containers/json", all="1"))[0]
    assert line["Status"] == "Exited (0) Less than a second ago"
    # As compose 1 writes its booleans.
    await api.ask("DELETE", "/containers/web", v="False", link="False", force="False")
    assert (api.status, api.containers.all()) == (204, [])


async def test_kill(api: Api) -> None:
    await api.run("web")
    await api.ask("POST", "/containers/web/kill", signal="HUP")
    assert (api.status, api.containers.signals) == (204, ["HUP"])
    await api.ask("POST", "/containers/web/kill")
    assert api.status == 409


async def test_stop_with_a_signal_of_its_own(api: Api) -> None:
    await api.run("web")
    await api.ask("POST", "/containers/web/stop", signal="USR1")
    assert (api.status, api.containers.get("web").status) == (400, "running")


async def test_numbers_that_are_none(api: Api) -> None:
    await api.run("web")
    answer = await api.ask("POST", "/containers/web/stop", t="soon")
    assert (api.status, answer) == (400, {"message": "invalid value for t: 'soon' is not a number"})


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({"name": ["we"]}, {"web"}),
        ({"name": ["^/web$"]}, {"web"}),
        ({"label": ["a=1"]}, {"web"}),
        ({"label": {"a": True, "b": True}}, set()),
        ({"status": ["exited"]}, {"old"}),
        ({"exited": ["0"]}, {"old"}),
        ({"exited": ["3"]}, set()),
        ({"network": ["demo"]}, {"web"}),
        ({"network": ["bridge"]}, {"old"}),
        ({"ancestor": ["busybox"]}, {"web", "old"}),
        ({"ancestor": ["busybox:latest"]}, {"web", "old"}),
        ({"ancestor": ["abababababab"]}, {"web", "old"}),
        ({"ancestor": ["nginx"]}, set()),
        ({"publish": ["8080"]}, {"web"}),
        ({"publish": ["80/tcp"]}, set()),
        ({"publish": ["8070-8090"]}, {"web"}),
        ({"expose": ["53/udp"]}, {"old"}),
        ({"since": ["old"]}, {"web"}),
        ({"since": ["web"]}, set()),
        ({"before": ["web"]}, {"old"}),
        ({"before": ["old"]}, set()),
        ({"volume": ["/data"]}, {"web"}),
        ({"volume": ["/srv/data", "/nowhere"]}, {"web"}),
        ({"volume": ["/dat"]}, set()),
        ({"health": ["none"]}, {"web", "old"}),
        ({"health": ["healthy", "none"]}, {"web", "old"}),
        ({"health": ["unhealthy"]}, set()),
        ({"is-task": ["false"]}, {"web", "old"}),
        ({"is-task": ["true"]}, set()),
    ],
)
async def test_filters(api: Api, filters: dict[str, Any], names: set[str]) -> None:
    await api.ask("POST", "/networks/create", {"Name": "demo"})
    await create(api, {"ExposedPorts": {"53/udp": {}}}, name="old")
    await api.ask("POST", "/containers/old/start")
    await api.ask("POST", "/containers/old/stop")
    host = {"NetworkMode": "demo", "PortBindings": {"80/tcp": [{"HostPort": "8080"}]}, "Binds": ["/srv/data:/data"]}
    await create(api, {"Labels": {"a": "1"}, "HostConfig": host}, name="web")
    await api.ask("POST", "/containers/web/start")
    assert {line["Names"][0][1:] for line in await api.ask("GET", "/containers/json", all="1", filters=filters)} == names


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"odd": ["x"]}, "invalid filter 'odd'"),
        ({"status": ["asleep"]}, "invalid filter 'status=asleep'"),
        ({"exited": ["zero"]}, "invalid filter 'exited=zero'"),
        ({"publish": ["http"]}, "invalid filter 'publish=http'"),
        ({"health": ["well"]}, "Unrecognised filter value for health: well"),
        ({"is-task": ["maybe"]}, "invalid filter 'is-task=[maybe]'"),
        (["name"], 'invalid filters: ["name"]'),
    ],
)
async def test_filters_that_there_are_not(api: Api, filters: Any, message: str) -> None:
    assert await api.ask("GET", "/containers/json", filters=filters) == {"message": message}
    assert api.status == 400


@pytest.mark.parametrize("key", ["since", "before"])
async def test_filters_by_a_container_that_is_not_there(api: Api, key: str) -> None:
    assert await api.ask("GET", "/containers/json", filters={key: ["nobody"]}) == {"message": "no such container nobody"}
    assert api.status == 404


async def test_the_last_ones(api: Api) -> None:
    for name in ("a", "b", "c"):
        await create(api, {}, name=name)
    assert [line["Names"] for line in await api.ask("GET", "/containers/json", limit="2")] == [["/c"], ["/b"]]


async def test_the_networks_of_a_container_on_the_hosts(api: Api) -> None:
    await create(api, {"HostConfig": {"NetworkMode": "host"}}, name="web")
    networks = (await api.ask("GET", "/containers/web/json"))["NetworkSettings"]["Networks"]
    assert {name: settings["NetworkID"] for name, settings in networks.items()} == {"host": api.controller.network("host").id}


async def test_wait_says_that_it_waits_before_the_container_starts(api: Api) -> None:
    """`docker run` starts the container only when it has seen the headers of its wait."""
    await create(api, {}, name="web")
    async with api.http.post("http://n/containers/web/wait", params={"condition": "next-exit"}) as response:
        assert (response.status, api.containers.waits) == (200, ["next-exit"])
        await api.ask("POST", "/containers/web/start")
        await api.ask("POST", "/containers/web/kill")
        assert await response.json() == {"StatusCode": 137}


async def test_wait_tells_why(api: Api) -> None:
    identity = await api.run("web")
    async with api.http.post("http://n/containers/web/wait") as response:
        api.containers.exits[identity].set_result(ExitStatus(127, "no such file"))
        assert await response.json() == {"StatusCode": 127, "Error": {"Message": "no such file"}}


async def test_waits_that_make_no_sense(api: Api) -> None:
    assert await api.ask("POST", "/containers/nobody/wait") == {"message": "No such container: nobody"}
    assert api.status == 404
    await api.run("web")
    assert await api.ask("POST", "/containers/web/wait", condition="bored") == {"message": 'invalid condition: "bored"'}
    assert api.status == 400


async def test_explain_tells_what_was_done(api: Api) -> None:
    await create(api, {}, name="web")
    answer = await api.ask("POST", "/containers/web/start", explain="1")
    endpoint = api.controller.endpoints()[0]
    line = f"ip link set veth{endpoint.id[:7]} up"
    assert (api.status, answer) == (200, {"Explain": [line]})
    assert await api.ask("POST", "/containers/web/stop", explain="1") == {"Explain": ["ip link set gone-web up"]}
    assert await api.ask("DELETE", "/containers/web", explain="1") == {"Explain": []}
    assert api.containers.all() == []


async def test_a_dry_run_changes_nothing(api: Api) -> None:
    host = {"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}}
    asked = {"HostConfig": host, "NetworkingConfig": {"EndpointsConfig": {"bridge": {"IPAMConfig": {"IPv4Address": "172.17.0.9"}}}}}
    lines = ["start web on bridge"]
    answer = await create(api, asked, name="web", dryrun="1")
    assert (api.status, answer, api.containers.all()) == (201, {"Id": "", "Warnings": [], "Explain": lines}, [])

    await create(api, asked, name="web")
    assert await api.ask("POST", "/containers/web/start", dryrun="1") == {"Explain": lines}
    assert api.containers.get("web").status == "created"
    answer = await api.ask("POST", "/containers/web/kill", dryrun="1")
    assert (api.status, "is not running" in answer["message"]) == (409, True)

    await api.ask("POST", "/containers/web/start")
    gone = {"Explain": ["ip link set gone-web up"]}
    assert await api.ask("POST", "/containers/web/stop", dryrun="1") == gone
    assert await api.ask("POST", "/containers/web/kill", dryrun="1") == gone
    assert await api.ask("DELETE", "/containers/web", dryrun="1", force="1") == gone
    answer = await api.ask("DELETE", "/containers/web", dryrun="1")
    assert (api.status, answer["message"][:37]) == (409, "You cannot remove a running container")
    assert api.containers.get("web").status == "running"

    answer = await create(api, {}, name="web", dryrun="1")
    assert (api.status, answer["message"][:9]) == (409, "Conflict.")
    assert (await create(api, {"HostConfig": {"NetworkMode": "host"}}, name="bare", dryrun="1"))["Explain"] == ["start bare on host"]


async def test_a_change_goes_on_when_its_client_hangs_up(api: Api) -> None:
    """Half a start is worse than one that nobody waits for."""
    await create(api, {}, name="web")
    api.containers.start_delay = 0.05
    request = asyncio.ensure_future(api.ask("POST", "/containers/web/start"))
    await asyncio.wait_for(api.containers.starting.wait(), 10)
    request.cancel()
    identity = api.containers.get("web").id
    async with api.http.post("http://n/containers/web/wait", params={"condition": "next-exit"}) as response:
        assert response.status == 200
    await eventually(lambda: api.containers.get("web").status == "running")
    assert api.controller.sandbox(identity) is not None


async def test_what_fails_when_its_client_has_gone_is_in_the_log(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    await create(api, {}, name="web")
    api.containers.start_delay = 0.3
    request = asyncio.ensure_future(api.ask("POST", "/containers/web/start"))
    await asyncio.wait_for(api.containers.starting.wait(), 10)
    request.cancel()
    api.containers.found.clear()
    await eventually(lambda: "after its client had gone, a request failed: No such container" in caplog.text)


async def test_a_server_that_ends_waits_for_changes(api: Api) -> None:
    await create(api, {}, name="web")
    api.containers.start_delay = 0.1
    request = asyncio.ensure_future(api.ask("POST", "/containers/web/start"))
    await asyncio.wait_for(api.containers.starting.wait(), 10)
    await api.application.close(grace=10)
    assert api.containers.get("web").status == "running"
    await request
    assert api.status == 204


async def test_links_are_shown_as_docker_shows_them(api: Api) -> None:
    """Whichever way they were asked for; a client that sends back what it has read asks for the same."""
    identity = await api.run("db")
    await create(api, {"HostConfig": {"Links": ["db", f"{identity[:12]}:database", "/db:/web/third"]}}, name="web")
    shown = ["/db:/web/db", "/db:/web/database", "/db:/web/third"]
    assert (await api.ask("GET", "/containers/web/json"))["HostConfig"]["Links"] == shown
    await create(api, {"HostConfig": {"Links": shown}}, name="web2")
    assert (await api.ask("GET", "/containers/web2/json"))["HostConfig"]["Links"] == [link.replace("web", "web2") for link in shown]
    assert (await api.ask("GET", "/containers/db/json"))["HostConfig"]["Links"] is None
