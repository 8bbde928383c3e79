"""What somebody else takes away of ours is back at once: rules, bridges, ports of bridges, addresses, routes, sysctls.

Each damage is done to a host with running containers that talk; the time until the kernel is as before is printed, not judged.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from tests.differences import differences
from tests.hosts import OUTSIDE_ADDRESS, Host
from tests.kernel.daily import IDLE, ask, network, run, serve

SUBNET = "10.75.0.0/24"
PATIENCE = 5.0
SYSCTL_PATIENCE = 15.0
"""No event tells of a changed sysctl: they are looked at every ten seconds."""

IN_HOST = {
    "ruleset": ("nft flush ruleset", "firewall"),
    "inet table": ("nft delete table inet netplug", "firewall"),
    "bridge table": ("nft delete table bridge netplug", "firewall"),
    "published port": ("nft flush map inet netplug pub4any", "firewall"),
    "networks": ("nft flush set inet netplug bridges", "firewall"),
    "bridge": ("ip link del {bridge}", "bridge"),
    "veth": ("ip link del {veth}", "veth"),
    "bridge address": ("ip address del {gateway} dev {bridge}", "address"),
    "bridge addresses": ("ip address flush dev {bridge}", "address"),
    "bridge's route": ("ip route del {subnet} dev {bridge}", "route"),
    "bridge down": ("ip link set {bridge} down", "link"),
    "veth down": ("ip link set {veth} down", "veth"),
    "veth off its bridge": ("ip link set {veth} nomaster", "veth"),
    "forwarding": ("sysctl -qw net.ipv4.ip_forward=0", "sysctl"),
}
IN_CONTAINER = {
    "address": ("ip address del {address} dev eth0", "address"),
    "addresses": ("ip address flush dev eth0", "address"),
    "default route": ("ip route del default", "route"),
    "all routes": ("ip route flush table main", "route"),
    "interface down": ("ip link set eth0 down", "link"),
    "interface": ("ip link del eth0", "veth"),
    "way to the resolver": ("nft flush ruleset", "names"),
}
"""Damages, each with what is counted when it is healed."""


@pytest.fixture
def host(hosts: Callable[..., Host]) -> Host:
    """Of its own: how often something has been healed is a part of what is tested."""
    return hosts()


@pytest.fixture
def lively(host: Host) -> Host:
    """A host with containers aa, which serves port 80 as 8080, and bb."""
    populate(host)
    return host


def populate(host: Host) -> None:
    network(host, "--subnet", SUBNET, "demo")
    serve(host, "aa", "--network", "demo", "-p", "8080:80")
    run(host, "bb", "--network", "demo", *IDLE)


def names(host: Host) -> dict[str, str]:
    """What the damages name."""
    identity = host.api("GET", "/networks/demo")["Id"][:12]
    ports = json.loads(host.run("ip", "-j", "link", "show", "master", f"br-{identity}").stdout)
    endpoint = host.container("aa")["NetworkSettings"]["Networks"]["demo"]["EndpointID"]
    veth = f"veth{endpoint[:7]}"
    assert veth in [port["ifname"] for port in ports]
    address = f"{host.container_address('aa', 'demo')}/24"
    return {"bridge": f"br-{identity}", "veth": veth, "subnet": SUBNET, "gateway": "10.75.0.1/24", "address": address}


def kernel(host: Host) -> Any:
    """Its state without what something that is made anew has otherwise: a veth's address, the order of tables, how a route was made."""
    state = host.state()
    for link in state["host"]["links"]:
        if link["kind"] == "veth":
            link.pop("address")
    for namespace in (state["host"], *state["sandboxes"].values()):
        namespace["nft"] = sorted(namespace["nft"].get("nftables", []), key=table)
        for route in namespace["routes"]:
            if "gateway" not in route:
                route.pop("protocol")
                for detail in ("prefsrc", "metric"):
                    route.pop(detail, None)
    return json.loads(json.dumps(state))


def table(item: dict[str, Any]) -> tuple[str, str]:
    """Of an object in a ruleset; the order within a table stays."""
    (content,) = item.values()
    return content["family"], content["table"] if "table" in content else content["name"]


def healed(host: Host, before: Any) -> None:
    """Waits until the kernel is as it was."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            now = kernel(host)
        except RuntimeError:  # something went while it was looked at
            now = None
        if now == before:
            return
        if time.monotonic() > deadline:
            pytest.fail("not healed:\n" + "\n".join(differences(now, before)))


def tell(host: Host, damaged: float) -> None:
    """Print how long it took, by the journal: what is looked at from outside takes longer than the healing."""
    until(lambda: heals(host))
    print(f"healed after {1000 * (heals(host)[-1] - damaged):.0f} ms")


def heals(host: Host) -> list[float]:
    """When something was healed."""
    entries = [entry for entry in host.api("GET", "/netplug/journal") if entry["action"] == "heal"]
    return [datetime.fromisoformat(entry["time"][:26] + "+00:00").timestamp() for entry in entries]


def broken(host: Host) -> list[str]:
    """What does not work of: between containers, out, in by the published port, and names."""
    tries: dict[str, Callable[[], object]] = {
        "neighbour": lambda: ask(host.sandbox("bb"), host.container_address("aa", "demo"), 80),
        "out": lambda: host.inside("aa", "ping", "-c1", "-W1", OUTSIDE_ADDRESS, check=False).returncode == 0,
        "published": lambda: ask(host.lan.outside.path, host.address, 8080) == OUTSIDE_ADDRESS,
        "names": lambda: host.netplug("exec", "aa", "getent", "hosts", "bb").returncode == 0,
    }
    return [name for name, works in tries.items() if not works()]


def check(host: Host, damage: str, kind: str, inside: str = "") -> None:
    """It is healed, counted as that kind, and said."""
    before = kernel(host)
    assert broken(host) == []
    argv = damage.format(**names(host)).split()
    with host.flood(host.container_address("bb", "demo"), sandbox="aa") as flood:
        host.inside(inside, *argv) if inside else host.run(*argv)
        damaged = time.time()
        healed(host, before)
    assert broken(host) == []
    tell(host, damaged)
    assert kind in healing(host)["healed"]
    assert healing(host)["suspended"] == []
    assert "put back what " in host.said()
    print(f"{len(flood.lost)} pings of 10 ms lost")
    assert len(flood.lost) < PATIENCE / 0.01


@pytest.mark.parametrize("damage", IN_HOST)
def test_damage_on_the_host_is_healed(lively: Host, damage: str):
    check(lively, *IN_HOST[damage])


@pytest.mark.parametrize("backend", ["iptables"])
@pytest.mark.parametrize("damage", ["bridge", "veth", "bridge address"])
def test_damage_beside_the_rules_of_iptables_is_healed(lively: Host, damage: str):
    check(lively, *IN_HOST[damage])


@pytest.mark.parametrize("damage", IN_CONTAINER)
def test_damage_inside_a_container_is_healed(lively: Host, damage: str):
    check(lively, *IN_CONTAINER[damage], inside="aa")


@pytest.mark.parametrize(
    ("damage", "inside"),
    [
        ("ip link set {bridge} down", ""),
        ("ip -6 route del fd75::/64 dev {bridge}", ""),
        ("ip link set eth0 down", "aa"),
        ("ip -6 address flush dev eth0", "aa"),
    ],
)
def test_ipv6_is_healed(host: Host, damage: str, inside: str):
    """Its addresses go when a link goes down, and their routes with them."""
    network(host, "--subnet", SUBNET, "--ipv6", "--subnet", "fd75::/64", "demo")
    serve(host, "aa", "--network", "demo")
    run(host, "bb", "--network", "demo", *IDLE)
    before = kernel(host)
    argv = damage.format(**names(host)).split()
    host.inside(inside, *argv) if inside else host.run(*argv)
    healed(host, before)
    assert host.inside("bb", "ping", "-c1", "-W1", "fd75::2").returncode == 0
    assert host.inside("bb", "ping", "-c1", "-W1", "fd75::1").returncode == 0


@pytest.mark.parametrize("damage", ["ip link del eth0", "ip link set eth0 down", "ip address flush dev eth0"])
def test_a_macvlan_link_is_healed(host: Host, damage: str):
    """Nothing of it is in the host's namespace."""
    network(host, "-d", "macvlan", "--subnet", "203.0.113.0/24", "--ip-range", "203.0.113.128/27", "-o", "parent=uplink", "flat")
    run(host, "aa", "--network", "flat", *IDLE)
    before = kernel(host)
    host.inside("aa", *damage.split())
    damaged = time.time()
    healed(host, before)
    tell(host, damaged)
    assert host.inside("aa", "ping", "-c1", "-W1", OUTSIDE_ADDRESS).returncode == 0


def test_what_an_admin_wrote_outlives_the_healing(lively: Host):
    """The chain `user` comes first and is not ours to empty, whatever happens around it."""
    lively.run("nft", "add rule inet netplug user ip saddr 192.0.2.1 drop")
    before = kernel(lively)
    lively.run("nft", "flush chain inet netplug forward")
    healed(lively, before)
    lively.run("nft", "flush", "ruleset")
    healed(lively, before)
    assert "192.0.2.1" in lively.run("nft", "list chain inet netplug user").stdout


def test_an_admins_rule_is_no_damage(lively: Host):
    lively.run("nft", "add rule inet netplug user ip saddr 192.0.2.1 drop")
    lively.run("nft", "add table inet other")
    lively.run("ip", "link", "add", "other0", "type", "bridge")
    lively.run("ip", "address", "add", "192.0.2.1/24", "dev", "other0")
    lively.run("ip", "link", "del", "other0")
    lively.run("nft", "flush map inet netplug pub4any")
    until(lambda: healing(lively)["healed"])
    assert healing(lively) == {"healed": {"firewall": 1}, "suspended": []}


def test_own_changes_are_no_damage(lively: Host):
    """Everything that the daemon takes away by itself is heard, and concerns nobody."""
    network(lively, "other")
    for action in ("connect", "disconnect", "connect"):
        lively.netplug("network", action, "other", "aa")
    lively.netplug("network", "disconnect", "demo", "aa")
    run(lively, "cc", "--network", "other", "-p", "8081:80", *IDLE)
    lively.netplug("rm", "-f", "aa", "bb", "cc")
    lively.netplug("network", "rm", "demo", "other")
    lively.run("nft", "flush set inet netplug bridges")  # behind all of that in the queue
    until(lambda: healing(lively)["healed"])
    assert healing(lively) == {"healed": {"firewall": 1}, "suspended": []}
    assert [entry["subject"] for entry in lively.api("GET", "/netplug/journal") if entry["action"] == "heal"] == [
        'the firewall: "netplug0" in inet netplug bridges'
    ]


def test_nobody_is_fought(lively: Host):
    """What goes again and again is left alone, is said once, and everything else is healed as before."""
    gateway, bridge = (names(lively)[key] for key in ("gateway", "bridge"))
    thing = f"demo: address {gateway} of {bridge}"
    for times in range(1, 4):
        lively.run("ip", "address", "del", gateway, "dev", bridge)
        until(lambda times=times: healing(lively)["healed"].get("address") == times)
    lively.run("ip", "address", "del", gateway, "dev", bridge)
    until(lambda: healing(lively)["suspended"])
    assert healing(lively) == {"healed": {"address": 3}, "suspended": [thing]}

    lively.run("ip", "link", "set", bridge, "down")
    until(lambda: healing(lively)["healed"].get("link"))
    assert gateway not in lively.run("ip", "address", "show", bridge).stdout
    assert lively.said().count("left alone for 60 s") == 1
    assert "--no-heal" in lively.said()

    lively.restart()
    assert gateway in lively.run("ip", "address", "show", bridge).stdout


def test_no_heal_only_says_what_it_sees(hosts: Callable[..., Host]):
    host = hosts("--no-heal")
    populate(host)
    gateway, bridge = (names(host)[key] for key in ("gateway", "bridge"))
    host.run("ip", "address", "del", gateway, "dev", bridge)
    until(lambda: f"address {gateway} of {bridge}" in host.said())
    host.run("ip", "link", "del", bridge)
    until(lambda: f"bridge {bridge}" in host.said())
    host.run("nft", "flush", "ruleset")
    until(lambda: "the firewall: our firewall tables" in host.said())
    assert host.said().count(f"address {gateway}") == 1
    assert host.run("nft", "list", "ruleset").stdout == ""
    assert bridge not in host.run("ip", "link").stdout
    assert healing(host) == {"healed": {}, "suspended": []}


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_no_heal_says_it_again_once_it_has_been_put_right(hosts: Callable[..., Host], backend: str):
    host = hosts("--no-heal", "--firewall-backend", backend)
    populate(host)
    bridge = names(host)["bridge"]
    for times in (1, 2):
        host.run("nft", "flush", "ruleset")
        until(lambda times=times: host.said().count("the firewall: our ") == times)
        host.run("ip", "link", "del", bridge)
        until(lambda times=times: host.said().count(f"bridge {bridge}") == times)
        host.netplug("doctor", "--fix")


def test_no_heal_says_it_again_once_it_is_right_by_itself(hosts: Callable[..., Host]):
    """Nothing outside tells when it has been seen right: it is given some time, and more if that was not enough."""
    host = hosts("--no-heal")
    populate(host)
    gateway, bridge = (names(host)[key] for key in ("gateway", "bridge"))
    thing = f"address {gateway} of {bridge}"

    def told_twice() -> bool:
        host.run("ip", "address", "del", gateway, "dev", bridge)
        until(lambda: thing in host.said())
        time.sleep(0.2)
        host.run("ip", "address", "add", gateway, "dev", bridge)
        time.sleep(1)
        return host.said().count(thing) >= 2  # what is told late of one turn may be told with the next

    until(told_twice)


IPTABLES = ("iptables -F", "iptables -t nat -F", "iptables -F NETPLUG-FORWARD", "ip6tables -F", "nft flush ruleset")


@pytest.mark.parametrize("damage", IPTABLES)
def test_damage_to_iptables_is_healed(hosts: Callable[..., Host], damage: str):
    host = hosts("--firewall-backend", "iptables")
    populate(host)
    before = kernel(host)
    host.run(*damage.split())
    damaged = time.time()
    healed(host, before)
    tell(host, damaged)
    assert broken(host) == []


def test_damage_to_legacy_iptables_is_healed(hosts: Callable[..., Host]):
    """Legacy tables raise no events."""
    host = hosts()
    host.stop()
    host.run("iptables-legacy", "-A", "INPUT", "-s", "192.0.2.1", "-j", "DROP")
    host.start("--firewall-backend", "iptables")
    populate(host)
    rules = [host.run("iptables-legacy-save", "-t", name).stdout.count("-A ") for name in ("filter", "nat")]
    assert min(rules) > 5
    for name in ("filter", "nat"):
        host.run("iptables-legacy", "-t", name, "-F")
    damaged = time.time()
    # The rule of the administrator's is not ours to put back.
    until(
        lambda: [host.run("iptables-legacy-save", "-t", name).stdout.count("-A ") for name in ("filter", "nat")] == [rules[0] - 1, rules[1]]
    )
    tell(host, damaged)
    assert broken(host) == []


def healing(host: Host) -> dict[str, Any]:
    return dict(host.api("GET", "/netplug/healing"))


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + SYSCTL_PATIENCE
    while not true():
        assert time.monotonic() < deadline, "this never came true"
