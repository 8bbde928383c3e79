"""What surrounds the handlers: versions, errors, events, images, extensions, the socket."""

from __future__ import annotations

import asyncio
import grp
import os
import socket
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from api_fakes import Api, FakeEntry, eventually, serving

from netplug import faults
from netplug.api import Application
from netplug.controller.ways import Way
from netplug.errors import Conflict, NetplugError, Unavailable
from netplug.kernel.journal import actor
from netplug.plan import LinkUp


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with serving() as running:
        yield running


async def test_ping(api: Api) -> None:
    assert await api.ask("GET", "/_ping") == "OK"
    assert (api.status, api.headers["Api-Version"], api.headers["Ostype"]) == (200, "1.47", "linux")
    assert await api.ask("HEAD", "/_ping") is None
    assert (api.status, api.headers["Api-Version"]) == (200, "1.47")


@pytest.mark.parametrize("prefix", ["", "/v1.24", "/v1.41", "/v1.99"])
async def test_any_version_prefix(api: Api, prefix: str) -> None:
    answer = await api.ask("GET", f"{prefix}/version")
    assert (answer["ApiVersion"], answer["MinAPIVersion"], answer["Version"], answer["Os"]) == ("1.47", "1.24", "0.1.0", "linux")


async def test_info(api: Api) -> None:
    await api.run("web")
    answer = await api.ask("GET", "/v1.47/info")
    assert (answer["Containers"], answer["ContainersRunning"], answer["Images"], answer["OSType"]) == (1, 1, 3, "linux")
    assert answer["MemoryLimit"] is False


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/nowhere"), ("GET", "/"), ("PUT", "/networks/x"), ("POST", "/v1.47/volumes/create"), ("GET", "/v2.0/version")],
)
async def test_unknown_routes(api: Api, method: str, path: str) -> None:
    assert await api.ask(method, path) == {"message": "page not found"}
    assert (api.status, api.headers["Content-Type"]) == (404, "application/json")


async def test_errors_carry_their_status(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(reference: str) -> Any:
        raise Unavailable("etcd does not answer")

    monkeypatch.setattr(api.controller, "network", unavailable)
    assert await api.ask("GET", "/networks/x") == {"message": "etcd does not answer"}
    assert (api.status, api.headers["Content-Type"]) == (503, "application/json")


async def test_what_nobody_expected_is_logged_and_answered(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(reference: str) -> Any:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(api.controller, "network", broken)
    assert await api.ask("GET", "/networks/x") == {"message": "ZeroDivisionError: by zero"}
    assert (api.status, "Traceback" in caplog.text) == (500, True)


async def test_a_body_beyond_all_measure(api: Api) -> None:
    answer = await api.ask("POST", "/networks/create", {"Name": "x", "Labels": {"a": "b" * (9 << 20)}})
    assert (api.status, answer) == (413, {"message": "the request body is larger than 8388608 bytes"})


async def test_the_journal_knows_for_whom(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(api.controller, "applied", lambda link: seen.append(actor.get()))
    async with api.http.post("http://n/networks/create", json={"Name": "x"}, headers={"User-Agent": "docker/28 (linux)"}):
        pass
    assert seen == [f"docker/28 uid {os.getuid()} pid {os.getpid()}"]


async def lines(response: Any, count: int) -> list[dict[str, Any]]:
    return [msgspec.json.decode(await asyncio.wait_for(response.content.readline(), 10)) for _ in range(count)]


async def test_events_as_they_come(api: Api) -> None:
    async with api.http.get("http://n/v1.47/events") as response:
        assert (response.status, response.headers["Content-Type"]) == (200, "application/json")
        await api.ask("POST", "/networks/create", {"Name": "demo"})
        identity = await api.run("web", "demo", Labels={"a": "1"})
        network = api.controller.network("demo")
        await api.ask("DELETE", "/containers/web", force="1")
        await api.ask("DELETE", "/networks/demo")
        found = await lines(response, 8)
    assert [(event["Type"], event["Action"]) for event in found] == [
        ("network", "create"),
        ("container", "create"),
        ("network", "connect"),
        ("container", "start"),
        ("network", "disconnect"),
        ("container", "die"),
        ("container", "destroy"),
        ("network", "destroy"),
    ]
    assert found[2]["Actor"] == {"ID": network.id, "Attributes": {"name": "demo", "type": "bridge", "container": identity}}
    assert found[3]["Actor"] == {"ID": identity, "Attributes": {"a": "1", "image": "busybox", "name": "web"}}
    assert (found[5]["status"], found[5]["id"], found[5]["from"]) == ("die", identity, "busybox")
    assert found[5]["Actor"]["Attributes"]["exitCode"] == "137"
    assert abs(found[0]["time"] - time.time()) < 60


@pytest.mark.parametrize(
    ("filters", "actions"),
    [
        ({"type": ["network"]}, ["create", "connect", "connect"]),
        ({"type": {"network": True}, "event": {"create": True}}, ["create"]),
        ({"container": ["web"]}, ["create", "start"]),
        ({"network": ["demo"]}, ["create", "connect"]),
        ({"label": ["a=1"]}, ["create", "start"]),
        ({"image": ["nginx"]}, []),
        ({"daemon": ["x"]}, []),
    ],
)
async def test_past_events_with_filters(api: Api, filters: dict[str, Any], actions: list[str]) -> None:
    start = time.time() - 1
    await api.ask("POST", "/networks/create", {"Name": "demo"})
    await api.run("web", Labels={"a": "1"})
    await api.ask("POST", "/networks/demo/connect", {"Container": "web"})
    query = {"since": f"{start:.3f}", "until": f"{time.time():.6f}", "filters": msgspec.json.encode(filters).decode()}
    async with api.http.get("http://n/events", params=query) as response:
        body = await asyncio.wait_for(response.read(), 10)
    assert [msgspec.json.decode(line)["Action"] for line in body.splitlines()] == actions


async def test_an_event_filter_that_there_is_not(api: Api) -> None:
    assert await api.ask("GET", "/events", filters={"colour": ["red"]}) == {"message": "invalid filter 'colour'"}
    assert await api.ask("GET", "/events", since="yesterday") == {
        "message": "invalid time 'yesterday': give seconds since 1970, RFC 3339, or a duration such as 10m"
    }


async def test_events_end_at_their_time(api: Api) -> None:
    async with api.http.get("http://n/events", params={"until": f"{time.time() + 0.05:.3f}"}) as response:
        assert await asyncio.wait_for(response.read(), 10) == b""


async def test_import_list_inspect_and_remove_an_image(api: Api) -> None:
    tarball = os.urandom(3 << 20)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(tarball), 100_000):
            yield tarball[start : start + 100_000]

    query = [("fromSrc", "-"), ("repo", "bb"), ("tag", "1"), ("changes", "CMD top"), ("changes", "USER 1")]
    async with api.http.post("http://n/images/create", params=query, data=pieces()) as response:
        assert (response.status, await response.json()) == (200, {"status": "sha256:" + "cd" * 32})
    assert (api.images.received == tarball, api.images.changes) == (True, ("CMD top", "USER 1"))
    listed = [image["RepoTags"] for image in await api.ask("GET", "/images/json")]
    assert (listed[0], listed[-1], len(listed)) == (["bb:1"], ["host:latest"], 4)
    assert [image["RepoTags"] for image in await api.ask("GET", "/images/json", filters={"reference": ["bb"]})] == [["bb:1"]]
    assert (await api.ask("GET", "/images/bb:1/json"))["Size"] == len(tarball)
    assert await api.ask("DELETE", "/images/bb:1") == [{"Untagged": "bb:1"}, {"Deleted": "sha256:" + "cd" * 32}]
    assert await api.ask("DELETE", "/images/bb:1") == {"message": "No such image: bb:1"}
    assert api.status == 404


async def test_an_image_that_stays(api: Api) -> None:
    assert await api.ask("DELETE", "/images/host") == {"message": "conflict: unable to remove host"}
    assert api.status == 403


async def test_nothing_is_pulled(api: Api) -> None:
    answer = await api.ask("POST", "/images/create", fromImage="nginx", tag="latest")
    assert api.status == 404
    assert answer["message"] == (
        "pull access denied for nginx, repository does not exist: netplug pulls nothing,"
        " import a root file system with `netplug image import`"
    )
    await api.ask("POST", "/images/create", fromSrc="http://example.org/x.tar")
    assert api.status == 400


def entry(number: int) -> FakeEntry:
    return FakeEntry(f"2026-01-0{number}T00:00:00Z", "connect", "web", "test", (LinkUp(link=f"eth{number}"),))


def shown(number: int) -> dict[str, Any]:
    return {
        "time": f"2026-01-0{number}T00:00:00Z",
        "action": "connect",
        "subject": "web",
        "by": "test",
        "commands": [f"ip link set eth{number} up"],
        "error": "",
    }


async def test_journal(api: Api) -> None:
    for number in (1, 2, 3):
        api.journal.record(entry(number))
    assert await api.ask("GET", "/netplug/journal") == [shown(1), shown(2), shown(3)]
    assert await api.ask("GET", "/v1.47/netplug/journal", limit="2") == [shown(2), shown(3)]


async def test_a_followed_journal(api: Api) -> None:
    api.journal.record(entry(1))
    async with api.http.get("http://n/netplug/journal", params={"follow": "1", "limit": "1"}) as response:
        assert await lines(response, 1) == [shown(1)]
        api.journal.record(entry(2))
        assert await lines(response, 1) == [shown(2)]
    await eventually(lambda: not api.journal.listeners)


async def test_ipam(api: Api) -> None:
    network = api.controller.network("bridge")
    pool = {
        "Subnet": "172.17.0.0/16",
        "IPRange": "",
        "Gateway": "172.17.0.1",
        "Capacity": 65533,
        "Taken": [{"Address": "172.17.0.1", "Kind": "gateway", "Owner": "", "Since": network.created}],
    }
    assert await api.ask("GET", "/netplug/ipam/bridge") == {"Network": "bridge", "Pools": [pool]}
    assert await api.ask("GET", "/netplug/ipam") == [{"Network": "bridge", "Pools": [pool]}]
    assert await api.ask("GET", "/netplug/ipam/x") == {"message": "network x not found"}


async def test_routes(api: Api) -> None:
    api.controller.found_ways = [
        Way("10.72.0.0/24", "192.0.2.2", "two", "demo", link="eth0"),
        Way("fd72::/64", "", "two", "demo", reason="it is far"),
    ]
    first = {"Destination": "10.72.0.0/24", "Via": "192.0.2.2", "Link": "eth0", "Node": "two", "Network": "demo"}
    second = {"Destination": "fd72::/64", "Via": "", "Link": "", "Node": "two", "Network": "demo"}
    assert await api.ask("GET", "/netplug/routes") == [
        {**first, "Status": "installed", "Alive": False},
        {**second, "Status": "skipped: it is far", "Alive": False},
    ]


async def test_fault_points_are_for_tests_only(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await api.ask("POST", "/netplug/faults", at="3") == {"message": "page not found"}
    assert (api.status, faults.left()) == (404, 0)
    monkeypatch.setattr(faults, "enabled", True)
    await api.ask("POST", "/netplug/faults", at="3")
    faults.point("nft.before")
    assert await api.ask("GET", "/netplug/faults") == {"left": 2, "passed": ["nft.before"]}
    await api.ask("POST", "/netplug/faults", at="0")
    assert await api.ask("GET", "/netplug/faults") == {"left": 0, "passed": []}
    await api.ask("POST", "/netplug/faults", at="-1")
    assert api.status == 400


async def test_who_may_connect(api: Api) -> None:
    """Root, and the group netplug where there is one: nobody else, not for a moment."""
    try:
        group = grp.getgrnam("netplug").gr_gid
    except KeyError:
        group = None
    found = api.path.stat()
    assert stat.S_IMODE(found.st_mode) == (0o600 if group is None else 0o660)
    assert group in (None, found.st_gid)


def other(api: Api) -> Application:
    services = api.application._services
    return Application(services)


async def test_a_living_daemons_socket_is_left_alone(api: Api) -> None:
    with pytest.raises(Conflict, match="another daemon answers there"):
        await other(api).start(api.path)
    assert await api.ask("GET", "/_ping") == "OK"


async def test_a_dead_daemons_socket_is_replaced(api: Api) -> None:
    path = api.path.with_name("dead")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    second = other(api)
    await second.start(path)
    assert await api.ask("GET", "/_ping") == "OK"
    await second.close()
    assert not path.exists()


async def test_what_is_no_socket_is_left_alone(api: Api) -> None:
    path = api.path.with_name("file")
    path.write_text("mine")
    with pytest.raises(Conflict, match="is no socket"):
        await other(api).start(path)
    assert path.read_text() == "mine"


async def test_a_folder_that_is_not_there(api: Api) -> None:
    with pytest.raises(NetplugError, match="cannot listen on"):
        await other(api).start(Path(api.path.parent, "no", "s"))
