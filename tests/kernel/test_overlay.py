"""Overlay networks: several nodes on one LAN, plans applied by a real executor in each, and packets between their containers."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from netplug.errors import StepFailed
from netplug.kernel import namespaces, survey, vxlan
from netplug.model import Endpoint, Network
from netplug.plan import DOOMED_GROUP, LINK_GROUP, Fdb, LinkUp, Neighbour, Plan, removal
from tests.differences import differences
from tests.hosts import Flood, Lan, Namespace, command, namespace_state
from tests.kernel.overlay_lab import Node, inside, meet, nodes_on, overlay_network

NETWORK = overlay_network()


@pytest.fixture
def nodes(lan: Lan, tmp_path: Path) -> Iterator[Callable[..., list[Node]]]:
    with contextlib.ExitStack() as stack:
        yield lambda count, **options: stack.enter_context(nodes_on(lan, tmp_path, count, **options))


def told(path: str, *argv: str) -> list[dict[str, Any]]:
    return [one for one in json.loads(command("nsenter", f"--net={path}", *argv).stdout or "[]") if one]


def entries(node: Node, network: Network = NETWORK) -> tuple[dict[str, str], dict[str, str]]:
    """By MAC the VTEP, by address the MAC, as `bridge` and `ip` tell them."""
    path, link = node.driver.namespace(network), f"vx-{network.id:.12}"
    forwarding = {one["mac"]: one["dst"] for one in told(path, "bridge", "-j", "fdb", "show", "dev", link) if "dst" in one}
    neighbours = [one for family in "46" for one in told(path, "ip", f"-{family}", "-j", "neigh", "show", "dev", link)]
    return forwarding, {one["dst"]: one["lladdr"] for one in neighbours if "PERMANENT" in one["state"]}


def whole(node: Node, network: Network = NETWORK) -> dict[str, Any]:
    """All that the kernel has of a node."""
    path = node.driver.namespace(network)
    there = Path(path).exists()
    return {
        "host": namespace_state(node.namespace.path),
        "overlay": overlay_state(path) if there else {},
        "entries": entries(node) if there else (),
        "namespaces": sorted(one.name for one in node.folder.iterdir()),
    }


def overlay_state(path: str) -> dict[str, Any]:
    state = namespace_state(path)
    for link in state["links"]:
        if link["kind"] in ("vxlan", "veth"):  # the kernel gives it a random one
            link.pop("address")
    return state


@pytest.mark.parametrize("family", [4, 6])
def test_containers_of_three_nodes_reach_one_another(nodes: Callable[..., list[Node]], family: int):
    """In both IP versions, over either: unicast only, and every question answered at home."""
    three = nodes(3, family=family)
    for number, node in enumerate(three, 2):
        node.connect(NETWORK, number)
    three[0].connect(NETWORK, 9)
    meet(NETWORK, *three)
    for number, node in enumerate(three, 2):
        for other in {2, 3, 4, 9} - {number}:
            assert node.pings(f"c{number}", f"10.7.0.{other}"), f"from {number} to {other}"
            assert node.pings(f"c{number}", f"fd07::{other:x}"), f"from {number} to {other}"
        assert node.pings(f"c{number}", "10.7.0.1"), "the gateway's address is on every node's bridge"
        assert not node.pings(f"c{number}", "203.0.113.1"), "and leads nowhere"

    (link,) = told(three[0].driver.namespace(NETWORK), "ip", "-j", "-d", "link", "show", f"vx-{NETWORK.id:.12}")
    data = link["linkinfo"]["info_data"]
    assert (link["group"], link["master"], data["id"], data["port"]) == (str(LINK_GROUP), "br0", 4097, 4789)
    assert (data["learning"], data["proxy"]) == (False, True)
    assert data["local" if family == 4 else "local6"] == three[0].vtep
    assert "4789" in three[0].namespace.run("ss", "-uan").stdout, "its socket is in the host"
    forwarding, neighbours = entries(three[1])
    assert forwarding == {f"02:42:0a:07:00:0{last}": three[0 if last != 4 else 2].vtep for last in (2, 9, 4)}
    assert neighbours == {address: f"02:42:0a:07:00:0{last}" for last in (2, 9, 4) for address in (f"10.7.0.{last}", f"fd07::{last}")}


@pytest.mark.parametrize(("family", "mtu"), [(4, 1450), (6, 1430)])
def test_a_packet_may_be_as_long_as_the_underlay_allows(nodes: Callable[..., list[Node]], family: int, mtu: int):
    one, two = nodes(2, family=family)
    one.connect(NETWORK, 2)
    two.connect(NETWORK, 3)
    meet(NETWORK, one, two)
    (eth0,) = told(one.sandbox("c2"), "ip", "-j", "link", "show", "eth0")
    assert eth0["mtu"] == mtu
    assert one.pings("c2", "10.7.0.3", "-M", "do", "-s", str(mtu - 28))
    assert not one.pings("c2", "10.7.0.3", "-M", "do", "-s", str(mtu - 27))
    assert one.pings("c2", "fd07::3", "-M", "do", "-s", str(mtu - 48))
    # With a byte more of its own the tunnel's packets would not fit the underlay: nothing is fragmented on the way.
    before = one.namespace.run("nstat", "-asz", "IpFragCreates", "Ip6FragCreates").stdout
    assert one.pings("c2", "10.7.0.3", "-M", "do", "-s", str(mtu - 28))
    assert one.namespace.run("nstat", "-asz", "IpFragCreates", "Ip6FragCreates").stdout == before


def test_nothing_is_flooded_and_nothing_learned(nodes: Callable[..., list[Node]], lan: Lan):
    """A broadcast, a question for nobody's address and a frame to an unknown MAC stay at home."""
    one, two = nodes(2)
    one.connect(NETWORK, 2)
    two.connect(NETWORK, 3)
    meet(NETWORK, one, two)
    assert one.pings("c2", "10.7.0.3")
    before = entries(one), entries(two)
    with capture(lan, "udp port 4789") as heard:
        inside(one.sandbox("c2"), "ping", "-n", "-b", "-c1", "-W1", "10.7.0.255")
        assert not one.pings("c2", "10.7.0.77")
        inside(one.sandbox("c2"), "ip", "neigh", "replace", "10.7.0.78", "lladdr", "02:42:00:00:00:99", "dev", "eth0")
        assert not one.pings("c2", "10.7.0.78")
    assert heard() == []
    inside(one.sandbox("c2"), "ip", "link", "set", "eth0", "address", "02:42:00:00:00:55")
    assert not one.pings("c2", "10.7.0.3"), "the answer goes to the MAC that the network knows"
    assert (entries(one), entries(two)) == before


@contextlib.contextmanager
def capture(lan: Lan, what: str) -> Iterator[Callable[[], list[str]]]:
    """What packets of that kind crossed the switch."""
    argv = lan.switch.argv("tcpdump", "-i", "any", "-n", "-l", what)
    sniffer = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert sniffer.stderr is not None
    while "listening on" not in sniffer.stderr.readline():
        pass
    heard: list[str] = []
    try:
        yield lambda: heard
    finally:
        sniffer.terminate()
        output, _ = sniffer.communicate(timeout=10)
        heard.extend(filter(None, output.splitlines()))


def test_peers_come_and_go(nodes: Callable[..., list[Node]]):
    one, two = nodes(2)
    one.connect(NETWORK, 2)
    web = two.connect(NETWORK, 3)
    two.learn(NETWORK, one.containers["c2"][0])
    assert not one.pings("c2", "10.7.0.3")
    one.learn(NETWORK, web)
    assert one.pings("c2", "10.7.0.3", "-W4"), "the container has asked in vain, and asks again once a second"
    one.forget(NETWORK, web)
    assert entries(one) == ({}, {})
    assert not one.pings("c2", "10.7.0.3")


@pytest.mark.parametrize("mac", ["", "02:42:00:00:00:aa"])
def test_an_address_goes_to_another_node_and_a_late_farewell_does_no_harm(nodes: Callable[..., list[Node]], mac: str):
    """The new owner is known before the old one is forgotten; with the MAC that every owner has, and with one of its own."""
    one, two, three = nodes(3)
    one.connect(NETWORK, 2)
    meet(NETWORK, one)
    old = two.connect(NETWORK, 9)
    two.learn(NETWORK, one.containers["c2"][0])
    one.learn(NETWORK, old)
    assert one.pings("c2", "10.7.0.9")
    two.disconnect(NETWORK, "c9")
    new = three.connect(NETWORK, 9, **({"mac": mac} if mac else {}))
    three.learn(NETWORK, one.containers["c2"][0])
    one.learn(NETWORK, new)
    assert one.pings("c2", "10.7.0.9"), "at once, whatever the neighbours knew"
    one.forget(NETWORK, old)
    assert one.pings("c2", "10.7.0.9")
    assert one.pings("c2", "fd07::9")
    assert entries(one) == ({new.mac: three.vtep}, {"10.7.0.9": new.mac, "fd07::9": new.mac})
    one.forget(NETWORK, new)
    assert entries(one) == ({}, {})


def test_applying_again_changes_nothing(nodes: Callable[..., list[Node]]):
    (node,) = nodes(1)
    before = whole(node)
    node.connect(NETWORK, 2)
    node.learn(NETWORK, remote(3))
    there = whole(node)
    plan = tuple(step for plan in node.plans(NETWORK) for step in plan)
    assert node.apply(plan) == ()
    assert whole(node) == there
    node.disconnect(NETWORK, "c2")
    assert list(differences(whole(node), before)) == []


def remote(number: int, vtep: str = "203.0.113.99") -> Endpoint:
    """An endpoint on a node that is not there."""
    mac = f"02:42:0a:07:{number >> 8:02x}:{number & 255:02x}"
    address = f"10.7.{number >> 8}.{number & 255}/24"
    return Endpoint(
        id=f"{number:064x}",
        network=NETWORK.id,
        sandbox="",
        created="",
        address=address,
        address6=f"fd07::{number:x}/64",
        mac=mac,
        vtep=vtep,
    )


def test_a_step_that_fails_leaves_nothing(nodes: Callable[..., list[Node]]):
    (node,) = nodes(1)
    before = whole(node)
    node.peers[""] = remote(3)
    for wrong in (LinkUp(link="missing"), Fdb(link="vx-none", mac="02:42:0a:07:00:04", vtep=node.vtep)):
        with pytest.raises(StepFailed) as failed:
            node.apply((*node.network_plan(NETWORK), wrong))
        assert failed.value.undone
        assert list(differences(whole(node), before)) == []


def test_a_failure_leaves_what_was_known_before(nodes: Callable[..., list[Node]]):
    (node,) = nodes(1)
    node.connect(NETWORK, 2)
    node.learn(NETWORK, remote(3))
    before = whole(node)
    elsewhere = msgspec.structs.replace(remote(3), vtep="203.0.113.98")
    added = node.driver.peer_added(NETWORK, elsewhere)
    with pytest.raises(StepFailed, match=r"fd00::1 is not of the IP version of this node's own address"):
        node.apply((*added, Fdb(namespace=added[0].namespace, link=f"vx-{NETWORK.id:.12}", mac="02:42:0a:07:00:04", vtep="fd00::1")))
    assert list(differences(whole(node), before)) == []
    assert node.run(lambda: node.executor.remove(removal(added))) == []
    assert list(differences(whole(node), before)) == [], "what leads elsewhere is not ours to remove"


def test_a_restart_loses_no_packet_and_forgets_what_is_stale(nodes: Callable[..., list[Node]]):
    one, two = nodes(2)
    one.connect(NETWORK, 2)
    two.connect(NETWORK, 3)
    meet(NETWORK, one, two)
    one.learn(NETWORK, remote(4))
    before = whole(one)
    place = one.driver.namespace(NETWORK)
    with Flood("10.7.0.3", one.sandbox("c2")) as flood:
        one.restart()
        restored = one.restore(NETWORK)
        assert (restored.missing, restored.strays, restored.failed, restored.stale) == ([], [], {}, 0)
        assert list(differences(whole(one), before)) == []

        one.apply(one.driver.peer_added(NETWORK, remote(5)))
        command("nsenter", f"--net={place}", "ip", "link", "add", "stray", "group", str(LINK_GROUP), "type", "bridge")
        command("nsenter", f"--net={place}", "ip", "link", "add", "leaving", "group", str(DOOMED_GROUP), "type", "bridge")
        command("nsenter", f"--net={place}", "ip", "link", "add", "theirs", "type", "bridge")
        command("nsenter", f"--net={place}", "bridge", "fdb", "del", remote(4).mac, "dev", f"vx-{NETWORK.id:.12}", "self")
        one.restart()
        plans = one.plans(NETWORK)
        kept = one.run(lambda: one.executor.restore(plans, peers_known=False))
        assert (kept.failed, kept.stale, sorted(kept.strays)) == ({}, 0, ["leaving", "stray"])
        assert kept.missing == [f"add forwarding of {remote(4).mac} to 203.0.113.99 on vx-{NETWORK.id:.12}"]
        changed, errors, stale = one.run(lambda: one.executor.resync(plans[0]))
        assert (changed, errors, stale) == ((), [], 3)
        command("nsenter", f"--net={place}", "ip", "link", "del", "theirs")
        assert list(differences(whole(one), before)) == []
    assert flood.lost == []


def test_restore_makes_all_anew(nodes: Callable[..., list[Node]]):
    """After a reboot, and where somebody has taken the tunnel away or down."""
    one, two = nodes(2)
    one.connect(NETWORK, 2)
    two.connect(NETWORK, 3)
    meet(NETWORK, one, two)
    before, place, link = whole(one), one.driver.namespace(NETWORK), f"vx-{NETWORK.id:.12}"
    for harm in (("ip", "link", "del", link), ("ip", "link", "set", link, "down", "nomaster"), ("ip", "link", "del", "br0")):
        command("nsenter", f"--net={place}", *harm)
        assert survey.missing(one.plans(NETWORK)[0]) != []
        assert one.restore(NETWORK).failed == {}
        assert list(differences(whole(one), before)) == []
        assert survey.missing(one.plans(NETWORK)[0]) == []
        assert one.pings("c2", "10.7.0.3")
    namespaces.remove(place)
    plan = one.plans(NETWORK)[0]
    assert survey.missing(plan) == list(plan)
    assert one.restore(NETWORK).failed == {}, "although the kernel still has the old tunnel, with the number"
    assert list(differences(whole(one), before)) == []
    assert one.pings("c2", "10.7.0.3")


def test_a_node_that_has_moved_gets_a_new_tunnel(nodes: Callable[..., list[Node]]):
    one, two = nodes(2)
    one.connect(NETWORK, 2)
    two.connect(NETWORK, 3)
    meet(NETWORK, one, two)
    one.namespace.ip("address", "add", "203.0.113.61/24", "dev", "uplink")
    one.driver = one.driver.on(msgspec.structs.replace(one.driver.here, address="203.0.113.61"))
    moved = msgspec.structs.replace(one.containers["c2"][0], vtep="203.0.113.61")
    two.learn(NETWORK, moved)
    restored = one.restore(NETWORK)
    assert restored.failed == {}
    assert one.pings("c2", "10.7.0.3")
    assert entries(two)[0] == {moved.mac: "203.0.113.61"}


def test_leaving_leaves_nothing(nodes: Callable[..., list[Node]]):
    """Many at once; at the end the VNI is free again at once."""
    (node,) = nodes(1)
    before = whole(node)
    for number in range(2, 12):
        node.connect(NETWORK, number)
    for number in range(2, 12):
        node.disconnect(NETWORK, f"c{number}")
    assert list(differences(whole(node), before)) == []
    node.connect(NETWORK, 2)
    node.disconnect(NETWORK, "c2")
    assert list(differences(whole(node), before)) == []


def test_the_commands_make_the_same(nodes: Callable[..., list[Node]]):
    """What a plan says in words, pasted on a host that has nothing, then taken back by the words for that."""
    (one,) = nodes(1)
    one.peers = {str(number): remote(number) for number in (3, 4)}
    one.connect(NETWORK, 2)
    plan = one.network_plan(NETWORK)
    bare = one.driver.namespace(NETWORK)
    wanted = entries(one), overlay_state(bare)
    one.disconnect(NETWORK, "c2")

    lines = [line for step in plan for line in step.explain()]
    paste(one.namespace, lines)
    plain = overlay_state(bare)
    for state in (plain, wanted[1]):
        for kind in ("links", "bridge", "addresses", "sysctls"):
            state[kind] = [entry for entry in state[kind] if "veth" not in str(entry)]
    assert entries(one) == wanted[0]
    assert list(differences(plain, wanted[1])) == []
    assert one.apply(plan) == (), "which is what the executor wants, too"
    paste(one.namespace, [line for step in removal(plan) for line in step.explain()])
    assert not Path(bare).exists()


def paste(namespace: Namespace, lines: list[str]) -> None:
    script = "set -e\n" + "\n".join(lines) + "\n"
    done = subprocess.run(namespace.argv("sh"), input=script, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), script


def test_tcp_with_the_offloads_that_there_are(nodes: Callable[..., list[Node]]):
    one, two = nodes(2)
    one.connect(NETWORK, 2)
    two.connect(NETWORK, 3)
    meet(NETWORK, one, two)
    server = subprocess.Popen(
        ["nsenter", f"--net={two.sandbox('c3')}", "iperf3", "-s", "-1", "--forceflush"], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        while "listening" not in server.stdout.readline():
            pass
        done = command("nsenter", f"--net={one.sandbox('c2')}", "iperf3", "-J", "-c", "10.7.0.3", "-n", "64M")
        result = json.loads(done.stdout)["end"]
        # What is on its way when the last byte is sent counts for the sender alone.
        assert result["sum_sent"]["bytes"] >= 64 << 20
        assert result["sum_received"]["bytes"] > 32 << 20
        # Of 46,000 segments; where none fits through the tunnel, each is sent again.
        assert result["sum_sent"]["retransmits"] < 5000
        print(f"{result['sum_received']['bits_per_second'] / 1e9:.1f} Gbit/s")
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def test_two_networks_are_apart(nodes: Callable[..., list[Node]]):
    """With the same subnet and the same port, by their numbers alone."""
    one, two = nodes(2)
    other = overlay_network(id="5f" * 32, name="other", vni=4098)
    one.connect(NETWORK, 2)
    two.connect(NETWORK, 3)
    meet(NETWORK, one, two)
    one.apply(one.driver.underlay(other))
    two.apply(two.driver.underlay(other))
    assert one.pings("c2", "10.7.0.3")
    one.remove(one.driver.delete_network(other))
    assert one.pings("c2", "10.7.0.3")


def test_a_number_that_another_has_is_refused_with_its_owner(nodes: Callable[..., list[Node]], tmp_path: Path):
    """As dockerd's links are: in a namespace of its own, the socket in the host."""
    (node,) = nodes(1)
    before = whole(node)
    theirs = Namespace(f"{node.namespace.name}-x")
    try:
        node.namespace.ip("link", "add", "vxlan0", "netns", theirs.name, "up", "type", "vxlan", "id", "4097", "dstport", "4789")
        with pytest.raises(StepFailed) as failed:
            node.apply(node.driver.underlay(NETWORK))
        assert str(failed.value) == (
            f"create VXLAN vx-{NETWORK.id:.12} with VNI 4097: VNI 4097 with UDP port 4789 is in use on this host by vxlan0 in"
            f" {theirs.path}: give the network another one (-o com.docker.network.driver.overlay.vxlanid_list=VNI), or another port"
        )
        assert list(differences(whole(node), before)) == []
        with pytest.raises(Exception, match="in use on this host by vxlan0"):
            node.run(lambda: checked(node.vtep, 4789, 4097))
        node.run(lambda: checked(node.vtep, 4789, 4098))
        node.run(lambda: checked(node.vtep, 4790, 4097))
        assert list(differences(whole(node), before)) == []
    finally:
        theirs.remove()


async def checked(local: str, port: int, vni: int = 0) -> None:
    vxlan.check(local, port, vni)


def test_a_port_that_a_program_has_is_refused_with_its_name(nodes: Callable[..., list[Node]]):
    (node,) = nodes(1)

    async def listening() -> socket.socket:
        taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        taken.bind(("203.0.113.11", 4789))
        return taken

    with node.run(listening):
        for attempt in (lambda: node.executor.apply(node.driver.underlay(NETWORK)), lambda: checked(node.vtep, 4789)):
            with pytest.raises(Exception, match=r"UDP port 4789 is in use on this host by \w+.*, pid \d+: give overlay networks another"):
                node.run(attempt)
    assert whole(node)["namespaces"] == []
    theirs = Namespace(f"{node.namespace.name}-x")
    try:
        node.namespace.ip("link", "add", "other", "netns", theirs.name, "up", "type", "vxlan", "id", "9", "dstport", "4789", "gbp")
        with pytest.raises(StepFailed, match="UDP port 4789 is in use on this host by another kind of tunnel"):
            node.apply(node.driver.underlay(NETWORK))
    finally:
        theirs.remove()


SHUT = """
add table inet shut
add chain inet shut input { type filter hook input priority 0; policy drop; }
add rule inet shut input udp dport 8472 accept
"""


@pytest.mark.parametrize("whose", ["network", "node"])
def test_tunnels_on_another_port(nodes: Callable[..., list[Node]], whose: str):
    """Of one network, or of all that a node has. Nothing else passes between the nodes, and programs have the usual port."""
    one, two = nodes(2)
    network = overlay_network(options={"netplug.vxlan.port": "8472"}) if whose == "network" else NETWORK
    with contextlib.ExitStack() as stack:
        for number, node in enumerate((one, two), 2):
            program = stack.enter_context(namespaces.open_socket(node.namespace.path, socket.AF_INET, socket.SOCK_DGRAM))
            program.bind(("0.0.0.0", 4789))
            node.namespace.run("nft", SHUT)
            if whose == "node":
                node.driver = node.driver.on(msgspec.structs.replace(node.driver.here, port=8472))
            node.connect(network, number)
        meet(network, one, two)
        assert one.pings("c2", "10.7.0.3")
        assert two.pings("c3", "10.7.0.2")
        two.namespace.run("nft", "flush chain inet shut input")
        assert not one.pings("c2", "10.7.0.3"), "the control: that port is all there is"


def test_the_underlay_is_found_by_its_address(nodes: Callable[..., list[Node]]):
    (node,) = nodes(1, mtu=1400)

    async def found(address: str) -> tuple[str, int]:
        return vxlan.underlay(address)

    assert node.run(lambda: found(node.vtep)) == ("uplink", 1400)
    assert node.run(lambda: found("2001:db8:113::11")) == ("uplink", 1400)
    with pytest.raises(Exception, match=r"192\.0\.2\.7 is no address of this host \(it has: 203\.0\.113\.11, 2001:db8:113::11\)"):
        node.run(lambda: found("192.0.2.7"))


@pytest.mark.parametrize("count", [500])
def test_many_peers_at_once(nodes: Callable[..., list[Node]], count: int):
    """Learned in one plan, learned again, forgotten: nothing is left, and the loop goes on meanwhile."""
    (node,) = nodes(1)
    node.connect(NETWORK, 2)
    peers = [remote(number) for number in range(256, 256 + count)]
    plan: Plan = tuple(step for peer in peers for step in node.driver.peer_added(NETWORK, peer))
    assert len(node.apply(plan)) == len(plan) == 3 * count
    assert [len(kind) for kind in entries(node)] == [count, 2 * count]
    assert node.apply(plan) == ()
    started = time.monotonic()
    assert survey.missing(plan) == []
    assert time.monotonic() - started < 5
    node.remove(removal(plan))
    assert entries(node) == ({}, {})
    assert all(isinstance(step, Fdb | Neighbour) for step in plan)
