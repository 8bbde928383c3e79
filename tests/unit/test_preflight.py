"""Preflight's checks, each on facts made up for it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from netplug.addressing import AddressPools, Ipams
from netplug.errors import InvalidArgument
from netplug.kernel.chains import Chain
from netplug.kernel.facts import ROUTER_ADVERTISEMENT, HostLink, HostRoute
from netplug.kernel.places import Place
from netplug.kernel.sockets import Bound, Process
from netplug.model import Network, PoolConfig, PortBinding
from netplug.observe import directories, filters, forwarding, limits, mtu, nodes, parts, pools, ports, programs
from netplug.observe.situation import MTU, Finding, Situation, Wanted, WantedBinding
from netplug.settings import Settings


def brief(findings: Iterable[Finding]) -> list[tuple[str, str]]:
    return [(finding.result, finding.found) for finding in findings]


def remedies(findings: Iterable[Finding]) -> list[str]:
    return [finding.remedy for finding in findings if finding.remedy]


def situation(*, running: bool = False, subnets: tuple[str, ...] = (), networks: tuple[Network, ...] = (), **settings: Any) -> Situation:
    chosen = msgspec.convert(settings, Settings)
    return Situation(settings=chosen, pid=42 if running else 0, wanted=Wanted(subnets=subnets), networks=networks)


def network(name: str = "demo", subnet: str = "10.7.0.0/24", **fields: Any) -> Network:
    values = {"id": "ab" * 32, "name": name, "driver": "bridge", "created": "", "pools": [PoolConfig(subnet=subnet)], **fields}
    return msgspec.convert(values, Network)


def route(subnet: str, link: str = "tun0", **fields: int) -> HostRoute:
    return HostRoute(ipaddress.ip_network(subnet), link, **fields)


def link(name: str, mtu: int = 1500, number: int = 1) -> HostLink:
    return HostLink(number, name, "veth", mtu, True, False)


# The cluster


def test_a_host_that_is_in_no_cluster():
    assert nodes.look(Settings()) is None
    assert list(nodes.check(situation(), None)) == []


def test_a_node_and_its_store():
    members = {"192.0.2.9:2379": "", "192.0.2.8": "Connection refused"}
    found = list(nodes.check(situation(store="etcd://192.0.2.9:2379,192.0.2.8"), nodes.Facts("", "192.0.2.1", 1500, members)))
    assert brief(found) == [
        ("ok", "other nodes reach this one at 192.0.2.1, UDP port 4789, by a link whose MTU is 1500"),
        ("warning", "no connection to 192.0.2.8 of the store: Connection refused"),
        ("ok", "of the store answer 192.0.2.9:2379"),
    ]


def test_a_node_whose_tunnels_cannot_be_made_and_whose_store_is_away():
    facts = nodes.look(msgspec.convert({"store": "etcd://127.0.0.1:1,[::1]:1", "advertise": "192.0.2.1"}, Settings))
    assert facts is not None
    found = list(nodes.check(situation(), facts))
    assert [finding.result for finding in found] == ["error", "error", "error"]
    assert "192.0.2.1 is no address of this host" in found[0].found
    assert found[1].found == "no connection to 127.0.0.1:1 of the store: Connection refused"


def test_a_store_that_cannot_be_read_is_a_finding_and_ends_no_other_check():
    facts = nodes.look(msgspec.convert({"store": "etcd://u:secret@192.0.2.9", "advertise": "192.0.2.1"}, Settings))
    found = list(nodes.check(situation(), facts))
    assert brief(found) == [("error", "invalid --store: no user and no @ belong into it; give --store-user NAME[:PASSWORD]")]
    assert remedies(found) == ["correct the daemon's --store, --store-…, --advertise, --node or --vxlan-port"]


# Pools

IPAMS = Ipams(AddressPools(local=(("10.100.0.0/22", 24),)))


def test_pools_that_nobody_else_has():
    assert brief(pools.check(situation(subnets=("10.7.0.0/24",)), [], IPAMS)) == [
        ("ok", "subnet 10.7.0.0/24 is free"),
        ("ok", "4 predefined pools are free: 10.100.0.0/24, 10.100.1.0/24, 10.100.2.0/24, …"),
    ]


@pytest.mark.parametrize(
    ("subnet", "taken", "result", "words"),
    [
        ("10.7.0.0/24", "10.0.0.0/8", "warning", "lies inside the host's route 10.0.0.0/8 by tun0"),
        ("10.7.0.0/24", "10.7.0.0/24", "error", "covers the host's route 10.7.0.0/24 by tun0"),
        ("10.0.0.0/8", "10.7.0.0/24", "error", "covers the host's route 10.7.0.0/24 by tun0"),
        ("fd00::/64", "fd00::/8", "warning", "lies inside the host's route fd00::/8 by tun0"),
        ("fd00::/8", "fd00::/64", "error", "covers the host's route fd00::/64 by tun0"),
    ],
)
def test_pools_beside_routes(subnet: str, taken: str, result: str, words: str):
    (found,) = [one for one in pools.check(situation(subnets=(subnet,)), [route(taken)], IPAMS) if "predefined" not in one.found]
    assert (found.result, found.found.startswith(f"subnet {subnet} {words}")) == (result, True)
    assert list(pools.beside(subnet, ipaddress.ip_network(subnet), [route("203.0.113.0/24"), route("2001:db8::/32")])) == []


def test_our_own_routes_and_defaults_are_no_obstacle():
    routes = [route("10.7.0.0/24", "br-1", ours=True), route("0.0.0.0/0", "eth0"), route("0.0.0.0/1"), route("::/0", "eth0")]
    assert brief(pools.check(situation(networks=(network(),)), routes, IPAMS)) == [
        ("ok", "0.0.0.0/1 goes by tun0, as a VPN writes it: what containers send out goes there too"),
        ("ok", "4 predefined pools are free: 10.100.0.0/24, 10.100.1.0/24, 10.100.2.0/24, …"),
    ]


def test_a_network_of_the_hosts_own_lan_has_its_subnet():
    """Its containers are the LAN's, by macvlan: nothing is routed by the host."""
    lan, routes = network(driver="macvlan"), [route("10.7.0.0/24", "eth0")]
    assert [found.result for found in pools.check(situation(networks=(lan,)), routes, IPAMS)] == ["ok"]
    assert [found.result for found in pools.check(situation(networks=(network(),)), routes, IPAMS)] == ["error", "ok"]


def test_pools_and_the_hosts_name_servers():
    servers = [ipaddress.ip_network(text) for text in ("10.100.1.53", "fd00::53", "9.9.9.9")]
    found = brief(pools.check(situation(subnets=("10.100.1.0/24", "fd00::/64", "10.7.0.0/24")), [], IPAMS, servers))
    assert [words.split(",")[0] for result, words in found if result == "warning"] == [
        "subnet 10.100.1.0/24 has the address of the host's name server 10.100.1.53",
        "subnet fd00::/64 has the address of the host's name server fd00::53",
        "1 predefined pools are taken by name server 10.100.1.53; next is 10.100.0.0/24",
    ]
    assert [words for result, words in found if result == "ok"] == ["subnet 10.7.0.0/24 is free"]


def test_which_predefined_pools_remain():
    some = list(pools.check(situation(), [route("10.100.0.0/23")], IPAMS))
    assert brief(some) == [
        ("warning", "2 predefined pools are taken by 10.100.0.0/23 by tun0; next is 10.100.2.0/24, 10.100.3.0/24"),
    ]
    assert remedies(some) == ["nothing to do: they are passed over, 2 remain"]
    assert brief(pools.check(situation(), [route("10.0.0.0/8", "")], IPAMS)) == [
        ("error", "no predefined pool is left: routes of the host take them (10.0.0.0/8 by nowhere)"),
    ]


def test_subnets_beside_networks_and_the_default_bridge():
    found = brief(pools.check(situation(subnets=("10.7.0.128/25",), networks=(network(),), bip="10.8.0.1/24"), [], IPAMS))
    assert ("error", "subnet 10.7.0.128/25 overlaps network demo") in found
    assert ("ok", "the default bridge's 10.8.0.0/24 is free") in found


# Ports


def binding(text: str) -> PortBinding:
    """`IP:PORT` or `IP:FIRST-LAST`; `*` for no address."""
    address, _, port = text.rpartition(":")
    first, _, last = port.partition("-")
    return PortBinding(protocol="tcp", port=80, host_ip=address.strip("[]*"), host_port=int(first), host_port_end=int(last or 0))


@pytest.mark.parametrize(
    ("one", "other", "port"),
    [
        ("*:8080", "*:8080", 8080),
        ("*:8080", "127.0.0.1:8080", 8080),
        ("*:8080", "[::1]:8080", 8080),
        ("0.0.0.0:8080", "127.0.0.1:8080", 8080),
        ("[::]:8080", "[::1]:8080", 8080),
        ("0.0.0.0:8080", "[::]:8080", 0),
        ("0.0.0.0:8080", "[::1]:8080", 0),
        ("127.0.0.1:8080", "127.0.0.2:8080", 0),
        ("*:8080", "*:8081", 0),
        ("*:0", "*:0", 0),
        ("*:8080-8090", "*:8080", 0),
    ],
)
def test_the_same_port_in_overlapping_forms(one: str, other: str, port: int):
    assert ports.clash(binding(one), binding(other)) == port == ports.clash(binding(other), binding(one))


def test_rows_of_ports_overlap_where_they_meet():
    row = msgspec.structs.replace(binding("*:8000"), count=11)
    assert ports.clash(row, binding("127.0.0.1:8010")) == 8010
    assert ports.clash(row, binding("127.0.0.1:8011")) == 0
    assert ports.clash(row, msgspec.structs.replace(binding("*:8010"), protocol="udp")) == 0


@pytest.mark.parametrize(
    ("wanted", "address", "only6", "taken"),
    [
        ("*:8080", "0.0.0.0", True, True),
        ("127.0.0.1:8080", "0.0.0.0", True, True),
        ("127.0.0.1:8080", "127.0.0.2", True, False),
        ("0.0.0.0:8080", "::", True, False),
        ("0.0.0.0:8080", "::", False, True),
        ("10.0.0.1:8080", "::ffff:10.0.0.1", False, True),
        ("[::]:8080", "0.0.0.0", True, False),
        ("*:8081", "0.0.0.0", True, False),
        ("*:8080-8081", "0.0.0.0", True, False),
    ],
)
def test_ports_that_programs_have(wanted: str, address: str, only6: bool, taken: bool):
    bound = [Bound("tcp", address, 8080, 7, only6)]
    holder = ports.holder(binding(wanted), situation(), bound, {7: Process(4711, "nginx")})
    assert holder == ("nginx, pid 4711" if taken else "")


def test_all_of_a_range_may_be_taken_and_one_of_a_row_is_enough():
    bound = [Bound("tcp", "0.0.0.0", port, port) for port in (8080, 8081)]
    assert ports.holder(binding("*:8080-8081"), situation(), bound, {}) == "a program that cannot be seen from here"
    row = msgspec.structs.replace(binding("*:8079"), count=2)
    assert ports.holder(row, situation(), bound, {8080: Process(1, "a")}) == "a, pid 1"
    assert ports.holder(msgspec.structs.replace(row, host_port=8078), situation(), bound, {}) == ""


def test_ports_that_containers_have_or_want():
    published = (("web", msgspec.structs.replace(binding("0.0.0.0:8000"), count=10)),)
    wanted = Wanted(port_bindings={"80/tcp": (WantedBinding(host_ip="127.0.0.1", host_port="8009"), WantedBinding(host_port="8010"))})
    asked = msgspec.structs.replace(situation(running=True), published=published, wanted=wanted, waiting=(("off", binding("*:8001")),))
    assert brief(ports.check(asked, [], {})) == [
        ("error", "127.0.0.1:8009:80/tcp is taken by container web"),
        ("ok", "8010:80/tcp is free"),
        ("warning", "container off does not run, and 8001:80/tcp is taken by container web"),
        ("ok", "1 published by netplug"),
    ]


def test_ports_that_this_host_cannot_hold():
    """Nobody has them, and they are refused all the same."""
    wanted = Wanted(port_bindings={"80/tcp": (WantedBinding(host_ip="192.0.2.9", host_port="8080"),), "80/sctp": (WantedBinding(),)})
    local = Wanted(port_bindings={"80/tcp": (WantedBinding(host_ip="fe80::9"),)})
    asked = msgspec.structs.replace(situation(), wanted=wanted)
    found = list(ports.check(asked, [], {}, ports.Lacks(frozenset({"192.0.2.9"}), sctp=True)))
    assert brief(found)[:2] == [
        ("error", "192.0.2.9:8080:80/tcp cannot be held: 192.0.2.9 is not an address of this host"),
        ("error", "80/sctp cannot be held: this host's kernel has no SCTP"),
    ]
    assert len(remedies(found)) == 2
    assert {result for result, _ in brief(ports.check(asked, [], {}))} == {"ok"}
    assert brief(ports.check(msgspec.structs.replace(asked, wanted=local), [], {}))[0] == (
        "error",
        "[fe80::9]:80/tcp cannot be held: a link-local address belongs to one link only",
    )


@pytest.mark.parametrize(
    "wrong", [{"80/nope": [{"HostPort": "1"}]}, {"80/tcp": [{"HostPort": "x"}]}, {"80/tcp": [{"HostIp": "x"}]}, {"x": [{}]}]
)
def test_ports_that_are_none(wrong: object):
    with pytest.raises(InvalidArgument, match="invalid port"):
        list(msgspec.convert({"PortBindings": wrong}, Wanted).bindings())
    with pytest.raises(InvalidArgument, match="invalid subnet nope: a CIDR is needed"):
        Wanted(subnets=("nope",)).networks()


# Directories

DISK = Place(Path("/"), "ext4", 1 << 30, False, True)


@pytest.mark.parametrize(
    ("state", "result", "words"),
    [
        (DISK, "ok", "/var/lib/netplug is on ext4, 1024 MiB left"),
        (DISK._replace(free=100 << 20), "warning", "100 MiB left for records, images and logs"),
        (DISK._replace(free=10 << 20), "error", "10 MiB left: nothing new can be recorded"),
        (DISK._replace(kind="nfs4"), "error", "/var/lib/netplug is on nfs4: sqlite's locks and its shared memory do not work there"),
        (DISK._replace(read_only=True), "error", "/var/lib/netplug is on a read-only file system"),
    ],
)
def test_where_the_records_live(state: Place, result: str, words: str):
    found = brief(directories.check(situation(), directories.Usage(), DISK, state, False))
    assert [text for kind, text in found if kind == result and words in text] != []
    assert {kind for kind, _ in found} == {"ok", result}


def test_where_the_sandboxes_live():
    def found(run: Place, private: bool) -> list[tuple[str, str]]:
        return brief(directories.check(situation(socket="/" + "x" * 107), directories.Usage(), run, DISK, private))

    assert ("ok", "/run/netplug is on ext4") in found(DISK, True)
    alone = (
        "/run/netplug is seen from a mount namespace of its own: a daemon started elsewhere, and your nsenter, do not find the sandboxes"
    )
    assert ("warning", alone) in found(DISK._replace(shared=False), True)
    assert ("error", "/run/netplug is on fuse.sshfs: namespaces cannot be mounted there for long") in found(
        DISK._replace(kind="fuse.sshfs"), False
    )
    assert found(DISK, False)[-1][1].endswith("is longer than 107 bytes")


def test_who_else_is_there():
    usage = directories.Usage(run=42, state=7, socket=0)
    assert brief(directories.check(situation(running=True), usage, DISK, DISK, False))[:2] == [
        ("error", "another daemon uses --state-dir /var/lib/netplug: pid 7"),
        ("error", "another daemon uses --socket /run/netplug/netplug.sock: a process that cannot be seen from here"),
    ]
    assert brief(directories.check(situation(running=True), directories.Usage(42, 42, 42), DISK, DISK, False))[0][0] == "ok"


@pytest.mark.parametrize(("running", "pid", "result"), [(False, 7, "error"), (False, 0, "error"), (True, 42, "ok"), (False, None, "ok")])
def test_who_else_is_in_the_namespace(running: bool, pid: int | None, result: str):
    """Whatever directories it has: a start beside it is refused."""
    found = list(directories.check(situation(running=running), directories.Usage(namespace=pid), DISK, DISK, False))
    assert found[0].result == result
    assert ("in this network namespace" in found[0].found) == (result == "error")
    assert result != "error" or "a network namespace of its own" in found[0].remedy


# Forwarding


def sysctls(**values: int) -> forwarding.Read:
    return lambda key: values.get(key.replace(".", "_"))


@pytest.mark.parametrize(
    ("running", "wanted", "value", "result"),
    [
        (False, True, 1, "ok"),
        (False, True, 0, "ok"),
        (True, True, 0, "error"),
        (False, False, 0, "error"),
        (False, False, 1, "ok"),
    ],
)
def test_forwarding(running: bool, wanted: bool, value: int, result: str):
    asked = situation(running=running, ip_forward=wanted)
    found = next(iter(forwarding.check(asked, [], sysctls(net_ipv4_ip_forward=value))))
    assert (found.check, found.result, bool(found.remedy)) == ("forwarding", result, result == "error")


def test_forwarding_of_ipv6():
    def found(value: int | None, **settings: Any) -> tuple[str, str]:
        read = sysctls(net_ipv4_ip_forward=1, **({} if value is None else {"net_ipv6_conf_all_forwarding": value}))
        (one,) = [one for one in forwarding.check(situation(**settings), [], read) if one.check == "forwarding IPv6"]
        return one.result, one.found

    assert found(1) == ("ok", "net.ipv6.conf.all.forwarding is 1")
    assert found(0) == ("ok", "net.ipv6.conf.all.forwarding is 0; no network needs it")
    assert found(0, subnets=("fd00::/64",))[0] == "ok"
    assert found(0, subnets=("fd00::/64",), ip_forward=False)[0] == "error"
    assert found(None) == ("ok", "this kernel has IPv6 switched off; no network needs it")
    assert found(None, networks=(network(ipv6=True),)) == ("error", "this kernel has IPv6 switched off")


def test_default_routes_from_advertisements():
    advertised = route("::/0", "eth0.7", protocol=ROUTER_ADVERTISEMENT)
    (found,) = forwarding.advertised([advertised, route("::/0", "eth1")], lambda key: 1)
    assert (found.result, found.remedy) == ("warning", "sysctl -w net.ipv6.conf.eth0/7.accept_ra=2 before the first network with --ipv6")
    assert brief(forwarding.advertised([advertised], lambda key: 2)) == [
        ("ok", "the IPv6 default route by eth0.7 is kept while this host forwards")
    ]


@pytest.mark.parametrize(
    ("values", "ways", "result"),
    [
        ({"net_ipv4_conf_all_rp_filter": 1}, ("eth0", "tun0"), "warning"),
        ({"net_ipv4_conf_eth0_rp_filter": 1}, ("eth0", "tun0"), "warning"),
        ({"net_ipv4_conf_all_rp_filter": 2, "net_ipv4_conf_eth0_rp_filter": 1}, ("eth0", "tun0"), "ok"),
        ({"net_ipv4_conf_all_rp_filter": 1}, ("eth0",), "ok"),
        ({}, ("eth0", "tun0"), "ok"),
    ],
)
def test_strict_reverse_path_filters(values: dict[str, int], ways: tuple[str, ...], result: str):
    (found,) = forwarding.reverse_path([route("0.0.0.0/0", way) for way in ways], sysctls(**values))
    assert found.result == result


# Firewalls

DROPPING = Chain("ip filter", "FORWARD", 0, drops=True)
DOCKER = [DROPPING, Chain("ip filter", "DOCKER-USER"), Chain("ip filter", "INPUT")]


def test_chains_that_drop():
    found = "ip filter FORWARD drops what nothing in it allows"
    assert brief(filters.check(situation(), DOCKER)) == [("ok", "dockerd keeps rules on this host"), ("warning", found)]
    (finding,) = filters.check(situation(running=True), [DROPPING])
    assert (finding.result, finding.found) == ("error", f"{found}, and no rule of ours is there: containers have no way in or out")
    assert finding.remedy == "iptables -I FORWARD -m mark --mark 0x1000/0x1000 -m comment --comment netplug -j ACCEPT"
    (finding,) = filters.check(situation(running=True), [DROPPING._replace(ours=True)])
    assert finding.result == "ok"


def test_who_has_to_let_us_through_by_himself():
    legacy = DROPPING._replace(table="ip6 filter", legacy=True)
    (finding,) = filters.check(situation(running=True), [legacy])
    assert (finding.result, finding.remedy.startswith("ip6tables-legacy -I FORWARD ")) == ("error", True)
    (finding,) = filters.check(situation(iptables=False), [legacy._replace(ours=True)])
    assert (finding.result, finding.remedy) == ("error", "allow there what comes from and goes to the networks' bridges")
    early = Chain("inet admin", "judge", -20, drops=True)
    (finding,) = filters.check(situation(running=True), [early])
    assert (finding.result, finding.found.endswith("before our rules can say what they allow")) == ("warning", True)
    (finding,) = filters.check(situation(running=True), [early._replace(priority=10)])
    assert finding.remedy == "nft insert rule inet admin judge meta mark and 0x1000 == 0x1000 accept"


def test_nobody_drops():
    chains = [Chain("ip filter", "ufw-user"), Chain("inet firewalld", "filter_FORWARD", 10)]
    assert brief(filters.check(situation(), chains)) == [
        ("ok", "ufw keeps rules on this host"),
        ("ok", "firewalld keeps rules on this host"),
        ("ok", "nobody drops what is forwarded"),
    ]
    assert [result for result, _ in brief(filters.check(situation(), None))] == ["warning"]


# MTU


@pytest.mark.parametrize(
    ("given", "uplink", "result"), [("", 1500, "ok"), ("", 1420, "warning"), ("1420", 1420, "ok"), ("9000", 1500, "warning")]
)
def test_mtu_beside_the_way_out(given: str, uplink: int, result: str):
    one = network(options={MTU: given} if given else {})
    found = list(mtu.check(situation(running=True, networks=(one,)), [], [link("eth0", 9000), link("tun0", uplink)]))
    assert {finding.result for finding in found} == {result}
    inner = msgspec.structs.replace(one, internal=True)
    assert {finding.result for finding in mtu.check(situation(running=True, networks=(inner,)), [], [link("tun0", uplink)])} == {"ok"}


@pytest.mark.parametrize(
    ("given", "room", "result"), [("", 1450, "ok"), ("1450", 1450, "ok"), ("1451", 1450, "warning"), ("9000", 8950, "warning")]
)
def test_mtu_of_a_network_of_the_cluster_beside_its_tunnel(given: str, room: int, result: str):
    """Its packets do not take the host's way out: they go in others, to the nodes."""
    one = network(driver="overlay", scope="global", options={MTU: given} if given else {})
    found = list(mtu.check(situation(running=True, networks=(one,)), [], [link("tun0", 1400)], room))
    assert {finding.result for finding in found} == {result}
    if result == "warning":
        assert f"above the {room} that a tunnel to another node has room for" in found[0].found
        assert remedies(found) == [f"make it with --opt {MTU}={room}"]


def test_mtu_of_the_default_bridge_and_of_a_wish():
    assert remedies(mtu.check(situation(), [], [link("tun0", 1420)])) == ["start the daemon with --mtu 1420"]
    wish = msgspec.structs.replace(situation(mtu=1420), wanted=Wanted(mtu=1450))
    assert remedies(mtu.check(wish, [], [link("tun0", 1420)])) == [f"use --opt {MTU}=1420"]
    assert brief(mtu.check(situation(), [], [])) == [("ok", "this host has no way out")]


# What there is


def test_parts_that_are_missing():
    there: dict[str, bool | None] = dict.fromkeys([*parts._NEEDED, *parts._USEFUL], True)
    assert [result for result, _ in brief(parts.check(situation(), there))] == ["ok"]
    for name, result in (("veth", "error"), ("nftables nat", "error"), ("vlan", "warning"), ("sctp", "warning")):
        (found, _) = parts.check(situation(), {**there, name: False})
        assert (found.result, found.found.startswith(f"{name} is missing: ")) == (result, True)
    (found, _) = parts.check(situation(firewall_backend="iptables"), {**there, "nftables nat": False})
    assert found.result == "warning"
    assert [result for result, _ in brief(parts.check(situation(), {**there, "iptables legacy": False}))] == ["ok"]


def test_programs_that_are_missing_or_old():
    needed = programs.needs(situation())
    good = {name: programs.Program(f"/usr/bin/{name}", (9, 9)) for name in needed}
    assert [result for result, _ in brief(programs.check(needed, good))] == ["ok"]
    old = {**good, "runc": programs.Program("/usr/bin/runc", (1, 0, 3)), "nft": programs.Program(""), "conmon": programs.Program("")}
    assert brief(programs.check(needed, old))[:3] == [
        ("warning", "runc is 1.0.3; nothing before 1.1 is tested"),
        ("error", "conmon is not installed; it keeps containers while the daemon is away"),
        ("warning", "nft is not installed; it prints what --explain says; nothing is changed through it"),
    ]
    assert "iptables" in programs.needs(situation(firewall_backend="iptables"))


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("runc version 1.1.5+ds1\ncommit: x", (1, 1, 5)),
        ("nftables v1.0.6 (Lester Gooch #5)", (1, 0, 6)),
        ("ip utility, iproute2-6.1.0", (6, 1, 0)),
        ("", ()),
    ],
)
def test_versions(text: str, version: tuple[int, ...]):
    assert programs.version_in(text) == version


def test_limits():
    busy = msgspec.structs.replace(situation(running=True), endpoints=1000)
    read = sysctls(net_netfilter_nf_conntrack_count=250, net_netfilter_nf_conntrack_max=256, net_ipv4_neigh_default_gc_thresh3=1024)
    assert brief(limits.check(busy, 1024, read)) == [
        ("warning", "the daemon may open 1024 files: enough for about 64 containers"),
        ("warning", "250 of 256 flows are tracked: nearly full"),
        ("warning", "1000 endpoints have up to 2000 neighbour entries, and net.ipv4.neigh.default.gc_thresh3 is 1024"),
    ]
    full = sysctls(net_netfilter_nf_conntrack_count=256, net_netfilter_nf_conntrack_max=256)
    assert brief(limits.check(situation(), 1 << 20, full)) == [("error", "256 of 256 flows are tracked: new connections are dropped")]
    assert [result for result, _ in brief(limits.check(busy, 1 << 20, sysctls()))] == ["ok"]
