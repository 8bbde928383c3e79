"""Networks whose subnets and addresses an IPAM plugin lends: the plugin and we agree in the end, whatever dies in the middle of what."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.differences import differences
from tests.hosts import ApiError, Host, Lan
from tests.kernel.conftest import NO_SERVER
from tests.kernel.plugin_lab import Plugin, changed, plugged, steps

Lab = tuple[Host, Plugin, dict[str, Any]]
PROGRAM = Path(__file__).with_name("ipam_plugin.py")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A host with two containers that have no address of the plugin's."""
    with Lan() as lan, contextlib.ExitStack() as stack:

        def hosts(environment: dict[str, str]) -> Host:
            host = stack.enter_context(Host(lan, resolv_conf=NO_SERVER, environment=environment))
            host.start()
            return host

        with plugged(hosts, tmp_path_factory.mktemp("plugin"), program=PROGRAM, NETPLUG_FAULTS="1") as (host, plugin):
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
    clear(host)
    for name in ("needs-mac", "first.json"):
        (plugin.folder / name).unlink(missing_ok=True)
    assert plugin.forgotten(), plugin.calls()
    assert list(differences(host.state(), before)) == []


def create(host: Host, *, v6: bool = False, **config: Any) -> dict[str, Any]:
    body = {"Name": "demo", "EnableIPv6": v6, "IPAM": {"Driver": "plug", "Config": [config] if config else []}}
    host.api("POST", "/networks/create", body)
    return dict(host.api("GET", "/networks/demo"))


def connect(host: Host, container: str = "aa", **config: Any) -> dict[str, Any]:
    host.api("POST", "/networks/demo/connect", {"Container": container, "EndpointConfig": {"IPAMConfig": config}})
    return dict(host.container(container)["NetworkSettings"]["Networks"]["demo"])


def disconnect(host: Host, container: str = "aa") -> None:
    host.api("POST", "/networks/demo/disconnect", {"Container": container})


def clear(host: Host) -> None:
    for container in ("aa", "bb"):
        with contextlib.suppress(ApiError):
            disconnect(host, container)
    with contextlib.suppress(ApiError):
        host.api("DELETE", "/networks/demo")


def becomes(condition: Callable[[], bool], patience: float = 10) -> bool:
    deadline = time.monotonic() + patience
    while not (true := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return true


def had(plugin: Plugin) -> list[str]:
    """Addresses that the plugin holds to be taken."""
    return sorted(key.partition(" ")[2] for key in json.loads((plugin.folder / "state.json").read_text())[1])


def test_a_life(lab: Lab):
    """Also over the daemon's death and the plugin's."""
    host, plugin, _ = lab
    network = create(host, v6=True)
    assert [(pool["Subnet"], pool["Gateway"]) for pool in network["IPAM"]["Config"]] == [
        ("10.128.0.0/24", "10.128.0.254"),
        ("fd12::/64", "fd12::fe"),
    ]
    assert network["IPAM"]["Driver"] == "plug"
    found = connect(host)
    assert (found["IPAddress"], found["GlobalIPv6Address"], found["Gateway"]) == ("10.128.0.100", "fd12::64", "10.128.0.254")
    assert connect(host, "bb", IPv4Address="10.128.0.7")["IPAddress"] == "10.128.0.7"
    assert host.inside("aa", "ping", "-c1", "-W2", "10.128.0.7").returncode == 0
    running = host.state()

    host.kill9()
    plugin.kill()
    host.start()
    assert host.state() == running
    with pytest.raises(ApiError, match=r'plugin "plug" (does not answer|is not there)'):
        host.api("POST", "/networks/create", {"Name": "other", "IPAM": {"Driver": "plug"}})
    disconnect(host, "bb")
    plugin.start()
    assert connect(host, "bb")["IPAddress"] == "10.128.0.99", "what has been given back meanwhile comes first to the plugin's ears"
    disconnect(host)
    disconnect(host, "bb")
    assert had(plugin) == ["10.128.0.254", "fd12::fe"]
    host.api("DELETE", "/networks/demo")
    assert plugin.knows() == (0, 0)


def test_what_the_user_asks_for_is_asked_of_the_plugin(lab: Lab):
    host, plugin, _ = lab
    create(host, Subnet="10.60.0.0/24", IPRange="10.60.0.128/25", Gateway="10.60.0.5", AuxiliaryAddresses={"printer": "10.60.0.9"})
    asked = [(method, body) for method, body in plugin.calls() if method.startswith("Request")]
    assert [(method, body.get("Address", body.get("Pool"))) for method, body in asked] == [
        ("RequestPool", "10.60.0.0/24"),
        ("RequestAddress", "10.60.0.5"),
        ("RequestAddress", "10.60.0.9"),
    ]
    assert (asked[0][1]["SubPool"], asked[0][1]["V6"]) == ("10.60.0.128/25", False)
    with pytest.raises(ApiError, match=r"10\.60\.0\.9 is taken"):
        connect(host, IPv4Address="10.60.0.9")
    assert had(plugin) == ["10.60.0.5", "10.60.0.9"]


def test_a_plugin_that_needs_macs_gets_them(lab: Lab):
    host, plugin, _ = lab
    (plugin.folder / "needs-mac").touch()
    plugin.restart()
    host.restart()
    create(host)
    mac = connect(host)["MacAddress"]
    (asked,) = [
        body["Options"] for method, body in plugin.calls() if method == "RequestAddress" and "RequestAddressType" not in body["Options"]
    ]
    assert asked == {"com.docker.network.endpoint.macaddress": mac}
    host.kill9()
    host.start()


def test_subnets_in_the_way_of_others_are_held_until_there_is_another(lab: Lab):
    host, plugin, _ = lab
    (plugin.folder / "first.json").write_text(json.dumps(["10.75.0.0/25", "10.75.0.128/25", "10.61.0.0/24"]))
    assert create(host)["IPAM"]["Config"][0]["Subnet"] == "10.61.0.0/24"
    assert becomes(lambda: plugin.knows()[0] == 1), "those are given back"
    with pytest.raises(ApiError, match="Pool overlaps"):
        host.api("POST", "/networks/create", {"Name": "other", "IPAM": {"Driver": "plug", "Config": [{"Subnet": "10.75.0.0/24"}]}})
    assert plugin.knows()[0] == 1


MOODS = {
    "die": r'plugin "plug" does not answer IpamDriver\.METHOD: ',
    "hang": r'plugin "plug" did not answer IpamDriver\.METHOD within 1 s',
    "refuse": r'plugin "plug" refused IpamDriver\.METHOD: not today',
    "rubbish": r'plugin "plug" does not answer IpamDriver\.METHOD: ',
}
SENSELESS: list[tuple[str, dict[str, Any], str]] = [
    ("RequestPool", {"PoolID": "p", "Pool": "10.0.0.300/24"}, "10.0.0.300/24"),
    ("RequestPool", {"PoolID": "", "Pool": "10.60.0.0/24"}, "pool '' with subnet 10.60.0.0/24 for one of IPv4"),
    ("RequestPool", {"PoolID": "p", "Pool": "fd00::/64"}, "for one of IPv4"),
    ("RequestPool", {"PoolID": 7}, "something else than it should"),
    ("RequestAddress", {"Address": "10.99.0.2/24"}, "10.99.0.2 for one of 10.128.0.0/24"),
    ("RequestAddress", {"Address": "here"}, "'here'"),
    ("RequestAddress", {"Address": ["10.128.0.2"]}, "something else than it should"),
]


def failing(host: Host, method: str) -> str:
    """Of what needs that answer, the error: one line."""
    with pytest.raises(ApiError) as raised:
        create(host) if method == "RequestPool" else connect(host)
    assert "\n" not in raised.value.message
    return raised.value.message


@pytest.mark.parametrize("method", ["RequestPool", "RequestAddress"])
def test_what_it_does_not_give(lab: Lab, method: str):
    host, plugin, _ = lab
    if method == "RequestAddress":
        create(host)
    for mood, sentence in MOODS.items():
        before = plugin.knows()
        plugin.mood(**{method: mood})
        assert re.match(sentence.replace("METHOD", method), failing(host, method))
        if plugin.process is not None and plugin.process.poll() is not None:
            plugin.restart()
        plugin.mood()
        assert plugin.knows() == before
    for asked, answer, sentence in SENSELESS:
        if asked == method:
            plugin.mood(**{method: answer})
            assert sentence in failing(host, method)
    plugin.mood()
    if method == "RequestPool":
        create(host)
    connect(host)


def test_an_address_is_not_had_twice(lab: Lab):
    host, plugin, _ = lab
    create(host)
    address = connect(host)["IPAddress"]
    plugin.mood(RequestAddress={"Address": f"{address}/24"})
    with pytest.raises(ApiError, match=f'IPAM driver "plug" has given {address} twice: aa has it already'):
        connect(host, "bb")
    plugin.mood()
    assert address in had(plugin), "it is not given back for whoever has it"
    assert connect(host, "bb")["IPAddress"] != address


def test_an_answer_that_is_lost_is_told_of(lab: Lab):
    """The plugin has done it and died: nobody but itself knows what it has given."""
    host, plugin, _ = lab
    create(host)
    before = plugin.knows()
    plugin.mood(RequestAddress="half")
    assert "does not answer" in failing(host, "RequestAddress")
    plugin.restart()
    connect(host)
    assert "plugin plug was asked for it and its answer was lost" in host.log.read_text()
    assert plugin.knows() == (before[0], before[1] + 2)
    # As its own tools would.
    pools, addresses = json.loads((plugin.folder / "state.json").read_text())
    plugin.kill()
    lost = next(key for key in addresses if key.endswith(".100"))
    (plugin.folder / "state.json").write_text(json.dumps([pools, {key: one for key, one in addresses.items() if key != lost}]))
    plugin.start()


def complaints(host: Host) -> int:
    """How often the log has told that a plugin may hold what nobody has: the answer was lost, or a pool has such an address."""
    said = host.log.read_text()
    return said.count("its answer was lost") + said.count("no more is done about it there")


STEPS = steps(IPAM={"Driver": "plug"})


@pytest.mark.parametrize("change", STEPS)
def test_the_daemon_dies_around_what_it_asks(lab: Lab, change: str):
    """What was lent comes back; but for what was in an answer that the daemon died of, which the log tells of."""
    host, plugin, _ = lab

    assert changed(host, STEPS, change, 0)
    passed = host.api("GET", "/netplug/faults")["passed"]
    clear(host)
    points = [number for number, name in enumerate(passed, 1) if name.startswith("driver")]
    points += [number for number, name in enumerate(passed, 1) if name == "store.after"][:1]
    assert points
    for number in points[:3]:
        told = complaints(host)
        changed(host, STEPS, change, number)
        host.kill9()
        host.start()
        clear(host)
        if not plugin.forgotten(3):
            assert complaints(host) > told, passed[number - 1]
            plugin.kill()
            (plugin.folder / "state.json").write_text("[{}, {}]")
            plugin.start()
