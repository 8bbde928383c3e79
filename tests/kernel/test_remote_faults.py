"""A plugin that dies, hangs, refuses or answers anything at all, at each of its calls; and a daemon that dies in between."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.differences import differences
from tests.hosts import ApiError, Host, Lan
from tests.kernel.conftest import NO_SERVER
from tests.kernel.plugin_lab import Plugin, changed, plugged, steps

Lab = tuple[Host, Plugin, dict[str, Any]]

MOODS = {
    "die": r'plugin "plug" does not answer \w+\.METHOD: ',
    "half": r'plugin "plug" does not answer \w+\.METHOD: ',
    "hang": r'plugin "plug" did not answer \w+\.METHOD within 1 s',
    "late": r'plugin "plug" did not answer \w+\.METHOD within 1 s',
    "refuse": r'plugin "plug" refused \w+\.METHOD: not today',
    "rubbish": r'plugin "plug" does not answer \w+\.METHOD: ',
    "huge": r'plugin "plug" answered \w+\.METHOD with more than \d+ bytes',
    "wrong": r'plugin "plug" answered \w+\.METHOD with something else than it should: ',
}
PATIENCE = 20
WITHOUT_ANSWER = ("CreateNetwork", "Leave", "DeleteEndpoint", "DeleteNetwork")
"""Whose answers say nothing, so that nothing in them can be wrong."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A host with a container that is on none of the plugin's networks."""
    with Lan() as lan, contextlib.ExitStack() as stack:

        def hosts(environment: dict[str, str]) -> Host:
            host = stack.enter_context(Host(lan, resolv_conf=NO_SERVER, environment=environment))
            host.start()
            return host

        with plugged(hosts, tmp_path_factory.mktemp("plugin"), NETPLUG_FAULTS="1") as (host, plugin):
            host.api("POST", "/networks/create", {"Name": "own", "IPAM": {"Config": [{"Subnet": "10.75.0.0/24"}]}})
            for name in ("aa", "bb"):
                body = {"Image": "host", "Cmd": ["busybox", "sleep", "1000"], "HostConfig": {"NetworkMode": "own"}}
                host.api("POST", f"/containers/create?name={name}", body)
                host.api("POST", f"/containers/{name}/start")
            yield host, plugin, host.state()


@pytest.fixture(autouse=True)
def whole(lab: Lab) -> Iterator[None]:
    """Afterwards nothing is left anywhere."""
    host, plugin, before = lab
    plugin.calls()
    yield
    if host.daemon is None:
        host.start()
    if plugin.process is None or plugin.process.poll() is not None:
        plugin.restart()
    plugin.mood()
    for container in ("aa", "bb"):
        with contextlib.suppress(ApiError):
            disconnect(host, container)
    with contextlib.suppress(ApiError):
        remove(host)
    assert plugin.forgotten(), plugin.calls()
    assert list(differences(host.state(), before)) == []


def create(host: Host) -> None:
    host.api("POST", "/networks/create", {"Name": "demo", "Driver": "plug", "IPAM": {"Config": [{"Subnet": "10.60.0.0/24"}]}})


def remove(host: Host) -> None:
    host.api("DELETE", "/networks/demo")


def connect(host: Host, container: str = "aa") -> None:
    host.api("POST", "/networks/demo/connect", {"Container": container})


def disconnect(host: Host, container: str = "aa") -> None:
    host.api("POST", "/networks/demo/disconnect", {"Container": container})


def addresses(host: Host) -> list[str]:
    pools = host.api("GET", "/netplug/ipam/demo")["Pools"] or []
    return [entry["Address"] for pool in pools for entry in pool["Taken"]]


def moods(method: str) -> list[str]:
    return [mood for mood in MOODS if not (method in WITHOUT_ANSWER and mood == "wrong")]


def well_again(plugin: Plugin, mood: str) -> None:
    if mood in ("die", "half") and plugin.process is not None:
        plugin.process.wait(PATIENCE)  # its connection has gone before it
    if plugin.process is not None and plugin.process.poll() is not None:
        plugin.restart()
    plugin.mood()


def failure(change: Callable[[Host], None], lab: Lab, method: str, mood: str) -> None:
    """The change fails in one line that says why; then the plugin is well again."""
    host, plugin, _ = lab
    plugin.mood(**{method: mood})
    with pytest.raises(ApiError) as raised:
        change(host)
    assert re.match(MOODS[mood].replace("METHOD", method), raised.value.message)
    assert "\n" not in raised.value.message
    well_again(plugin, mood)


@pytest.mark.parametrize("method", ["Activate", "GetCapabilities", "CreateNetwork"])
def test_a_network_that_cannot_be_made(lab: Lab, method: str):
    host, plugin, _ = lab
    for mood in moods(method):
        plugin.restart()  # so that it is greeted again
        failure(create, lab, method, mood)
        assert "demo" not in [network["Name"] for network in host.api("GET", "/networks")]
        create(host)
        remove(host)


@pytest.mark.parametrize("method", ["CreateEndpoint", "Join"])
def test_an_endpoint_that_cannot_be_made(lab: Lab, method: str):
    host, _, before = lab
    create(host)
    free = addresses(host)
    for mood in moods(method):
        failure(connect, lab, method, mood)
        assert addresses(host) == free
        assert list(host.container("aa")["NetworkSettings"]["Networks"]) == ["own"]
        connect(host)
        assert len(addresses(host)) == len(free) + 1
        disconnect(host)
    assert host.state()["sandboxes"] == before["sandboxes"]


@pytest.mark.parametrize("method", ["Leave", "DeleteEndpoint", "DeleteNetwork"])
def test_what_is_to_go_goes(lab: Lab, method: str):
    host, plugin, before = lab
    for mood in moods(method):
        create(host)
        connect(host)
        plugin.mood(**{method: mood})
        disconnect(host)
        assert list(host.container("aa")["NetworkSettings"]["Networks"]) == ["own"]
        remove(host)
        well_again(plugin, mood)
        assert plugin.forgotten(), plugin.calls()
    assert host.state()["sandboxes"] == before["sandboxes"]


BAD_ANSWERS: list[tuple[str, dict[str, Any], str]] = [
    ("Join", {"InterfaceName": {"SrcName": "nowhere0", "DstPrefix": "eth"}}, "there is no link nowhere0 to move"),
    (
        "Join",
        {"InterfaceName": {"SrcName": "uplink/../x", "DstPrefix": "eth"}},
        "InterfaceName.SrcName 'uplink/../x' is not the name of a link",
    ),
    ("Join", {"InterfaceName": {"SrcName": "lo", "DstPrefix": "eth"}}, "lo is the loopback"),
    ("Join", {"InterfaceName": {"SrcName": "plug0", "DstPrefix": "much-too-long-a-prefix"}}, "a prefix of up to 12 letters"),
    ("Join", {"Gateway": "here"}, "Gateway 'here' is no address"),
    ("Join", {"StaticRoutes": [{"Destination": "10.9.0.0/16", "RouteType": 0}]}, "route to 10.9.0.0/16 of type 0 without a next hop"),
    ("CreateEndpoint", {"Interface": {"Address": "10.60.0.77/24"}}, "Address 10.60.0.77/24, where 10.60.0.2/24 was asked for"),
    ("CreateEndpoint", {"Interface": {"MacAddress": "ff:ff:ff:ff:ff:ff"}}, "'ff:ff:ff:ff:ff:ff' is no address of an interface"),
]


@pytest.mark.parametrize(("method", "answer", "reason"), BAD_ANSWERS)
def test_an_answer_that_cannot_be_done(lab: Lab, method: str, answer: dict[str, Any], reason: str):
    host, plugin, before = lab
    create(host)
    plugin.mood(**{method: answer, "CreateEndpoint": answer if method == "CreateEndpoint" else None})
    with pytest.raises(ApiError) as raised:
        connect(host)
    assert reason in raised.value.message
    assert host.state()["sandboxes"] == before["sandboxes"]


def test_a_hanging_plugin_holds_up_nobody_else(lab: Lab):
    """Neither the sandbox's lock nor a network's is held meanwhile."""
    host, plugin, _ = lab
    create(host)
    plugin.mood(Join="hang")
    failures: list[Exception] = []

    def hanging() -> None:
        try:
            connect(host)
        except ApiError as error:
            failures.append(error)

    thread = threading.Thread(target=hanging)
    thread.start()
    while not any(method == "Join" for method, _ in plugin.calls()):
        time.sleep(0.01)
    host.api("POST", "/networks/create", {"Name": "aside", "IPAM": {"Config": [{"Subnet": "10.61.0.0/24"}]}})
    host.api("POST", "/networks/aside/connect", {"Container": "bb"})
    host.api("POST", "/networks/aside/disconnect", {"Container": "bb"})
    host.api("DELETE", "/networks/aside")
    with pytest.raises(ApiError, match=r"network demo id \w+ has active endpoints \(aa\)"):
        remove(host)
    assert failures == [], "the others waited for it"
    thread.join()
    assert len(failures) == 1


def test_a_daemon_stops_although_a_plugin_hangs(lab: Lab):
    host, plugin, _ = lab
    create(host)
    plugin.mood(Join="hang", Leave="hang")
    said: list[str] = []

    def hanging() -> None:
        try:
            connect(host)
        except ApiError as error:
            said.append(error.message)

    thread = threading.Thread(target=hanging)
    thread.start()
    while not any(method == "Join" for method, _ in plugin.calls()):
        time.sleep(0.01)
    assert host.stop() == 0
    thread.join()
    assert said == ["the daemon is stopping: plug was not waited for"]
    plugin.mood()
    host.start()


STEPS = steps(Driver="plug", IPAM={"Config": [{"Subnet": "10.60.0.0/24"}]})


@pytest.mark.parametrize("change", STEPS)
def test_the_daemon_dies_at_fault_points(lab: Lab, change: str):
    """Whatever it dies in the middle of, the next one and the plugin agree in the end. `test_faults` dies at every point of a plan."""
    host, plugin, before = lab

    assert changed(host, STEPS, change, 0)
    passed = host.api("GET", "/netplug/faults")["passed"]
    # What lies between the end of one store's transaction and the next point is the same as before that point.
    points = [number for number, name in enumerate(passed, 1) if name.startswith("driver") or name == "store.before" or number % 9 == 0]
    assert {"driver.before", "driver.after"} <= {passed[number - 1] for number in points}
    survived = []
    for number in [0, *points]:
        if number:
            if changed(host, STEPS, change, number):
                survived.append(number)
            host.kill9()
            host.start()
        with contextlib.suppress(ApiError):
            disconnect(host)
        with contextlib.suppress(ApiError):
            remove(host)
        assert plugin.forgotten(), (number, plugin.calls())
    assert list(differences(host.state(), before)) == []
    # Tails that nobody waits for (the container's own record) may fall before the change or behind it, and shift the count.
    assert len(survived) < len(points) / 2
