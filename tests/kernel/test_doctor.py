"""`netplug doctor`: differences of many kinds are planted on a host that heals nothing; each is named, repaired, and gone then.

A host for each firewall backend serves all tests of the module: what one test breaks is whole again for the next.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from netplug.kernel import namespaces
from netplug.plan import LINK_GROUP, ROUTE_PROTOCOL
from tests.hosts import OUTSIDE_ADDRESS, Host, Lan
from tests.kernel.conftest import NO_SERVER
from tests.kernel.daily import IDLE, network, run
from tests.kernel.test_heal import names

STRICT = "com.docker.network.bridge.enable_icc=false"

IN_HOST = {
    "bridge": ("ip link del {bridge}", "network demo: bridge {bridge} is missing"),
    "veth": ("ip link del {veth}", "container aa: veth {veth} is missing"),
    "bridge address": ("ip address del {gateway} dev {bridge}", "network demo: address {gateway} of {bridge} is missing"),
    "bridge down": ("ip link set {bridge} down", "network demo: bridge {bridge} is missing, down"),
    "veth down": ("ip link set {veth} down", "container aa: veth {veth} is missing, down"),
    "veth off its bridge": ("ip link set {veth} nomaster", "container aa: veth {veth} is missing, down, or no port"),
    "ruleset": ("nft flush ruleset", "the firewall: missing or changed: our firewall tables"),
    "inet table": ("nft delete table inet netplug", "the firewall: missing or changed: table inet netplug"),
    "bridge table": ("nft delete table bridge netplug", "the firewall: missing or changed: table bridge netplug"),
    "a chain": ("nft flush chain bridge netplug icc", "the firewall: missing or changed: chain bridge netplug icc"),
    "published port": ("nft flush map inet netplug pub4any", "the firewall: port 0.0.0.0:8080/tcp to {ip}:80 is missing"),
    "masquerading": ("nft flush set inet netplug masq4", "the firewall: masquerading of 10.75.0.0/24 is missing"),
    "isolation": ("nft flush set inet netplug bridges", "the firewall: isolation of {bridge} is missing"),
    "guard": ("nft flush map bridge netplug ports", "the firewall: .*{veth}.* is missing"),
    "a port of nobody": (
        "nft add element inet netplug pub4any {{ tcp . 9999 : 10.75.0.9 . 80 }}",
        "the firewall: tcp . 9999 in inet netplug pub4any: nobody has asked for it",
    ),
    "a port that leads elsewhere": (
        "nft delete element inet netplug pub4any {{ tcp . 8080 }} ; add element inet netplug pub4any {{ tcp . 8080 : 10.75.0.9 . 80 }}",
        "the firewall: port 0.0.0.0:8080/tcp to {ip}:80 is missing",
    ),
    "another's firewall": (
        "nft add table ip other ; add chain ip other forward {{ type filter hook forward priority 0 ; policy drop ; }}",
        "other tools' chains: ip other forward drops what netplug allows",
    ),
    "another backend's chains": (
        "sh iptables-nft -N NETPLUG-FORWARD && iptables-nft -A FORWARD -j NETPLUG-FORWARD",
        "the firewall: ip chains of iptables-nft are left",
    ),
    "another backend's chains of IPv6": ("ip6tables-nft -t nat -N NETPLUG", "the firewall: ip6 chains of iptables-nft are left"),
    "another backend's legacy chains": (
        "sh iptables-legacy -t nat -N NETPLUG && iptables-legacy -t nat -A PREROUTING -j NETPLUG",
        "the firewall: ip chains of iptables-legacy are left",
    ),
    "forwarding": ("sysctl -qw net.ipv4.ip_forward=0", "the host: sysctl net.ipv4.ip_forward=1 is not set"),
    "MTU of the bridge": ("ip link set {bridge} mtu 1300", "network demo: {bridge} has MTU 1300 instead of 1500"),
    "MTU of the veth": ("ip link set {veth} mtu 1300", "container aa: {veth} has MTU 1300 instead of 1500"),
    "MAC of the bridge": ("ip link set {bridge} address 02:00:00:00:00:99", "network demo: {bridge} has MAC 02:00:00:00:00:99 instead of"),
    "hairpin": ("bridge link set dev {veth} hairpin off", "container aa: {veth} has hairpin off instead of on"),
    "isolated port": ("bridge link set dev {veth} isolated on", "container aa: {veth} has isolated on instead of off"),
    "port that does not learn": ("bridge link set dev {veth} learning off", "container aa: {veth} has learning off instead of on"),
    "port that is not flooded": ("bridge link set dev {veth} flood off", "container aa: {veth} has flood off instead of on"),
    "port without broadcasts": ("bridge link set dev {veth} bcast_flood off", "container aa: {veth} has bcast_flood off instead of on"),
    "port without multicasts": ("bridge link set dev {veth} mcast_flood off", "container aa: {veth} has mcast_flood off instead of on"),
    "link without a record": (
        f"ip link add vethabcdef0 group {LINK_GROUP} type veth peer name other0",
        "link vethabcdef0: veth vethabcdef0 carries our mark and has no record",
    ),
    "route without a record": (
        f"ip route add 192.0.2.0/24 via {OUTSIDE_ADDRESS} proto {ROUTE_PROTOCOL}",
        f"the host: route 192.0.2.0/24 via {OUTSIDE_ADDRESS} carries our mark and has no record",
    ),
}
IN_CONTAINER = {
    "address": ("ip address del {ip}/24 dev eth0", "container aa: address {ip}/24 of eth0 is missing"),
    "default route": ("ip route del default", "container aa: route default via 10.75.0.1 is missing"),
    "default route elsewhere": ("ip route replace default via 10.75.0.9", "container aa: route .* leads elsewhere: via 10.75.0.9 on eth0"),
    "interface down": ("ip link set eth0 down", "container aa: eth0 is not up"),
    "interface": ("ip link del eth0", "container aa: veth {veth} is missing"),
    "MTU": ("ip link set eth0 mtu 1300", "container aa: eth0 has MTU 1300 instead of 1500"),
    "MAC": ("ip link set eth0 address 02:00:00:00:00:98", "container aa: eth0 has MAC 02:00:00:00:00:98 instead of"),
    "another backend's redirection": ("iptables-nft -t nat -N NETPLUG_OUTPUT", "container aa: ip chains of iptables-nft are left"),
    "way to the resolver": ("nft flush ruleset", "container aa: the way to its resolver is missing"),
}
BY_IPTABLES = {
    "chain": ("iptables -F NETPLUG-FORWARD", "the firewall: missing or changed: rule .* in ip filter NETPLUG-FORWARD"),
    "jump": ("iptables -D FORWARD -j NETPLUG-FORWARD", "the firewall: missing or changed: rule .*-j NETPLUG-FORWARD in ip filter FORWARD"),
    "published port": ("iptables -t nat -F NETPLUG", "the firewall: port 0.0.0.0:8080/tcp to {ip}:80 is missing"),
    "masquerading": ("iptables -t nat -F NETPLUG-POSTROUTING", "the firewall: masquerading of 10.75.0.0/24 is missing"),
    "bridge table": ("nft delete table bridge netplug", "the firewall: missing or changed: table bridge netplug"),
    "guard": ("nft flush map bridge netplug ports", "the firewall: .*{veth}.* is missing"),
    "another backend's table": (
        "nft add table inet netplug ; add chain inet netplug forward {{ type filter hook forward priority 0 ; policy drop ; }}",
        "the firewall: table inet netplug of another firewall backend is left",
    ),
}


@contextlib.contextmanager
def unhealed(*flags: str) -> Iterator[Host]:
    """A host that heals nothing, with `aa` on `demo`, whose port 80 is 8080."""
    with Lan() as lan, Host(lan, "--no-heal", *flags, resolv_conf=NO_SERVER) as host:
        host.start()
        network(host, "--subnet", "10.75.0.0/24", "--opt", STRICT, "demo")
        run(host, "aa", "--network", "demo", "-p", "8080:80", *IDLE)
        yield host


@pytest.fixture(scope="module")
def by_nftables() -> Iterator[Host]:
    with unhealed() as host:
        yield host


@pytest.fixture(scope="module")
def by_iptables() -> Iterator[Host]:
    with unhealed("--firewall-backend", "iptables") as host:
        yield host


def examine(host: Host) -> list[str]:
    return [f"{found['Subject']}: {found['Found']}" for found in host.api("GET", "/netplug/doctor")]


def words(host: Host) -> dict[str, str]:
    return {**names(host), "ip": host.container_address("aa", "demo")}


def check(host: Host, argv: list[str], expected: str, inside: str = "") -> list[dict[str, Any]]:
    """Named, repaired, gone; what was repaired."""
    assert examine(host) == []
    pattern = expected.format(**{key: re.escape(value) for key, value in words(host).items()})
    host.inside(inside, *argv) if inside else host.run(*argv)
    found = host.api("GET", "/netplug/doctor")
    assert any(re.match(pattern, f"{one['Subject']}: {one['Found']}") for one in found), found
    assert all(one["Meaning"] and one["Repair"] for one in found)
    treated: list[dict[str, Any]] = host.api("POST", "/netplug/doctor")
    assert [one["Error"] for one in treated if one["Error"]] == []
    assert any(re.match(pattern, f"{one['Subject']}: {one['Found']}") for one in treated), treated
    assert examine(host) == []
    return treated


def split(text: str) -> list[str]:
    """One argument for nft, whose own commands are separated by `;`, and for a shell."""
    program, _, rest = text.partition(" ")
    if program == "sh":
        return ["sh", "-ec", rest]
    return [program, rest] if program == "nft" else text.split()


@pytest.mark.parametrize("damage", IN_HOST)
def test_what_differs_in_the_host(by_nftables: Host, damage: str):
    text, expected = IN_HOST[damage]
    check(by_nftables, split(text.format(**words(by_nftables))), expected)


@pytest.mark.parametrize("damage", IN_CONTAINER)
def test_what_differs_in_a_container(by_nftables: Host, damage: str):
    text, expected = IN_CONTAINER[damage]
    check(by_nftables, split(text.format(**words(by_nftables))), expected, "aa")


@pytest.mark.parametrize("damage", BY_IPTABLES)
def test_what_differs_in_iptables(by_iptables: Host, damage: str):
    text, expected = BY_IPTABLES[damage]
    check(by_iptables, split(text.format(**words(by_iptables))), expected)


def test_a_rule_that_nobody_asked_for_in_iptables(by_iptables: Host):
    rule = ["-p", "tcp", "--dport", "9999", "-j", "DNAT", "--to-destination", "10.75.0.9:80"]
    check(by_iptables, ["iptables", "-t", "nat", "-A", "NETPLUG", *rule], "the firewall: rule .*9999.*nobody has asked for it")


def test_the_way_to_the_resolver_by_iptables(by_iptables: Host):
    check(by_iptables, ["iptables", "-t", "nat", "-F"], "container aa: the way to its resolver is missing", "aa")


def test_another_backends_table_in_a_container(by_iptables: Host):
    plant = ["nft", "add table ip netplug"]
    check(by_iptables, plant, "container aa: table ip netplug of another firewall backend is left", "aa")


def test_what_is_printed_takes_another_backends_rules_away(by_nftables: Host):
    host = by_nftables
    host.run("sh", "-ec", "iptables-nft -N NETPLUG-FORWARD; iptables-nft -A FORWARD -j NETPLUG-FORWARD")
    host.inside("aa", "iptables-nft", "-t", "nat", "-N", "NETPLUG_OUTPUT")
    found = host.api("GET", "/netplug/doctor")
    assert [one["Subject"] for one in found] == ["the firewall", "container aa"]
    host.run("sh", "-ec", "\n".join(line for one in found for line in one["Repair"]))
    assert examine(host) == []


def test_a_namespace_without_a_record(by_nftables: Host):
    host = by_nftables
    path = host.run_directory / "netns" / "abcdef"
    namespaces.create(str(path))
    assert examine(host) == [f"namespace abcdef: {path} has no record"]

    host.api("POST", "/netplug/doctor")

    assert examine(host) == []
    assert not path.exists()


@pytest.mark.parametrize("which", ["bridge", "veth"])
def test_what_others_have_under_our_name_is_moved_and_not_deleted(by_nftables: Host, which: str):
    host = by_nftables
    name = words(host)[which]
    subject = "network demo" if which == "bridge" else "container aa"

    plant = f"ip link del {name} && ip link add {name} type bridge"
    check(host, ["sh", "-c", plant], f"{subject}: somebody else has a bridge where {which} {name} belongs")

    host.run("ip", "link", "del", f"x-{name}"[:15])


def test_a_host_port_that_somebody_else_has(by_nftables: Host):
    """It was taken while the daemon was away; as long as it is, nothing can be done, and the reason is said."""
    host = by_nftables
    host.stop()
    taken = "import socket, time; s = socket.create_server(('0.0.0.0', 8080)); print(flush=True); time.sleep(100)"
    with subprocess.Popen(host.argv("python3", "-c", taken), stdout=subprocess.PIPE) as program:
        try:
            assert program.stdout is not None
            program.stdout.readline()
            host.start()
            assert examine(host) == ["container aa: host port 0.0.0.0:8080/tcp is published, and not held"]
            done = host.netplug("doctor", "--fix")
            assert done.returncode == 1
            assert "not repaired: Bind for 0.0.0.0:8080 failed: address already in use" in done.stdout
        finally:
            program.terminate()

    done = host.netplug("doctor", "--fix")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "1 of 1 repaired")
    assert host.netplug("doctor").stdout == "Nothing differs\n"


def test_the_command_prints_what_repairs_it(by_nftables: Host):
    """What doctor prints, pasted, is a repair too; the status says whether there is anything."""
    host = by_nftables
    known = words(host)
    host.run("ip", "address", "del", known["gateway"], "dev", known["bridge"])
    done = host.netplug("doctor")
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == f"network demo: address {known['gateway']} of {known['bridge']} is missing"
    assert host.netplug("doctor", "--format", "{{.Subject}}").stdout == "network demo\n"

    host.run("sh", "-ec", "\n".join(host.api("GET", "/netplug/doctor")[0]["Repair"]))

    done = host.netplug("doctor")
    assert (done.returncode, done.stdout) == (0, "Nothing differs\n")


def test_what_is_printed_for_changed_links_repairs_them(by_nftables: Host):
    """On both ends of a pair, and on a link that has no bridge; with an MTU of the network's own."""
    host = by_nftables
    network(host, "--subnet", "10.78.0.0/24", "--opt", "com.docker.network.driver.mtu=1400", "small")
    network(host, "-d", "macvlan", "-o", "parent=uplink", "-o", "com.docker.network.driver.mtu=1400", "--subnet", "10.77.0.0/24", "mac")
    assert examine(host) == []
    for name, on in (("bb", "small"), ("on-mac", "mac")):
        run(host, name, "--network", on, *IDLE)
        assert examine(host) == []
        host.inside(name, "ip", "link", "set", "eth0", "mtu", "1300", "address", "02:00:00:00:00:97")
        mac = host.container(name)["NetworkSettings"]["Networks"][on]["MacAddress"]
        found = host.api("GET", "/netplug/doctor")
        assert [f"{one['Subject']}: {one['Found']}" for one in found] == [
            f"container {name}: eth0 has MTU 1300 instead of 1400",
            f"container {name}: eth0 has MAC 02:00:00:00:00:97 instead of {mac}",
        ]
        host.run("sh", "-ec", "\n".join(line for one in found for line in one["Repair"]))
        assert examine(host) == []
        host.netplug("rm", "-f", name, check=True)
        assert examine(host) == []
    host.netplug("network", "rm", "small", "mac", check=True)


def test_the_journal_has_what_was_put_right_of_a_link(by_nftables: Host):
    host = by_nftables
    host.inside("aa", "ip", "link", "set", "eth0", "mtu", "1300")
    host.api("POST", "/netplug/doctor")
    newest = host.api("GET", "/netplug/journal")[-1]
    assert (newest["action"], newest["subject"]) == ("doctor", "container aa: eth0 had MTU 1300 instead of 1500")


def test_what_is_under_way_is_no_difference(by_nftables: Host):
    """Containers come and go meanwhile."""
    host = by_nftables
    command = f"{sys.executable} -m netplug.cli"
    script = f"for i in 1 2 3; do {command} run -d --name w$i --network demo host busybox sleep 100; {command} rm -f w$i; done"
    with subprocess.Popen(["sh", "-ec", script], env=host.environment, stdout=subprocess.DEVNULL) as busy:
        looks = 0
        while busy.poll() is None:
            assert examine(host) == []
            looks += 1
    assert (busy.returncode, looks > 5) == (0, True)


NETWORKS = {
    "six": ("--ipv6", "--subnet", "fd76::/64", "--subnet", "10.76.0.0/24"),
    "only6": ("--ipv6", "--ipv4=false", "--opt", "com.docker.network.bridge.gateway_mode_ipv6=routed"),
    "inner": ("--internal",),
    "mac": ("-d", "macvlan", "-o", "parent=uplink", "--subnet", "10.77.0.0/24"),
}


@pytest.fixture(params=["by_nftables", "by_iptables"])
def either(request: pytest.FixtureRequest) -> Host:
    host: Host = request.getfixturevalue(request.param)
    return host


def test_nothing_differs_where_much_is_used(either: Host):
    """Every kind of network and port, before and after a restart of the daemon."""
    host = either
    for name, arguments in NETWORKS.items():
        network(host, *arguments, name)
    run(host, "bb", "--network", "six", "-p", "9000-9003:9000-9003/udp", "-p", "[::1]:9100:80", "-p", "81", *IDLE)
    run(host, "cc", "--network", "demo", "--link", "aa:web", "--cap-add", "NET_ADMIN", *IDLE)
    for name in ("only6", "inner"):
        host.netplug("network", "connect", name, "bb", check=True)
    for kind in ("host", "none", "bridge", "mac"):
        run(host, f"on-{kind}", "--network", kind, *IDLE)
    assert examine(host) == []
    host.restart()
    assert examine(host) == []
    containers = ["bb", "cc", *(f"on-{kind}" for kind in ("host", "none", "bridge", "mac"))]
    host.netplug("rm", "-f", *containers, check=True)
    host.netplug("network", "rm", *NETWORKS, check=True)
    assert examine(host) == []


def test_a_container_whose_namespace_is_gone(by_nftables: Host):
    """The daemon looks for such by itself every ten seconds: if it comes first, there is another."""
    host = by_nftables
    for number in range(5):
        run(host, f"gone{number}", "--network", "demo", *IDLE)
        path = host.sandbox(f"gone{number}")
        subprocess.run(["umount", path], check=True)
        if found := examine(host):
            break
    assert found == [f"container gone{number}: its network namespace {path} is gone, or another one"]

    assert [one["Error"] for one in host.api("POST", "/netplug/doctor")] == [""]

    assert examine(host) == []
    assert host.api("GET", "/networks/demo")["Containers"].keys() == {host.container("aa")["Id"]}
    host.netplug("rm", "-f", *(f"gone{one}" for one in range(number + 1)), check=True)
