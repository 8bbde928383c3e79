"""Addresses that change hands, nodes that do not come back, and what somebody takes away in an overlay's namespace."""

from __future__ import annotations

import itertools
import json
import time

import pytest

from tests.cluster.lab import (
    PATIENCE,
    RUNNING,
    Lab,
    answer,
    network_of,
    peers,
    pings,
    place,
    reboot,
    remove,
    run,
    settled,
    within,
)
from tests.hosts import ApiError, Host, command

AGAIN = f"{RUNNING}.50"
FIXED = {"IPAMConfig": {"IPv4Address": AGAIN}}


@pytest.mark.parametrize("mac", ["", "02:42:ac:00:00:01"], ids=["usual MAC", "another MAC"])
def test_fault_an_address_changes_hands(pair: Lab, mac: str):
    """From n2 to n1 and back within a second: frames, neighbours and names lead to the new owner, and stay with him."""
    one, two = pair.hosts
    network = network_of(pair)
    owners = [(two, "x0", ""), (one, "x1", mac), (two, "x2", ""), (one, "x3", "")]
    run(*owners[0][:2], **FIXED)
    within(PATIENCE, True, lambda: pings(one, "aa", AGAIN))
    for (before, old, _), (after, new, own_mac) in itertools.pairwise(owners):
        remove(before, old)
        began = time.monotonic()
        within(PATIENCE, True, lambda after=after, new=new, own_mac=own_mac: _takes(after, new, own_mac))
        other = one if after is two else two
        within(PATIENCE, after.address, lambda other=other: peers(other, network).get(AGAIN))
        settled(pair)
        print(f"{time.monotonic() - began:.2f} s")
        assert AGAIN not in peers(after, network)
        assert answer(one, "aa", new) == answer(two, "bb", new) == AGAIN
        assert answer(one, "aa", old) == answer(two, "bb", old) == ""
        within(PATIENCE, (True, True), lambda: (pings(one, "aa", AGAIN), pings(two, "bb", AGAIN)))


def _takes(host: Host, name: str, mac: str) -> bool:
    """It may have to hear of the release first."""
    try:
        run(host, name, **FIXED, **({"MacAddress": mac} if mac else {}))
    except ApiError:
        remove(host, name)
        return False
    return True


def test_fault_an_address_flaps(pair: Lab):
    """As often as it can, and then all agree."""
    one, two = pair.hosts
    for turn in range(4):
        for host in (one, two):
            name = f"{host.namespace.name[-1]}x{turn}"
            within(PATIENCE, True, lambda host=host, name=name: _takes(host, name, ""))
            if turn < 3 or host is one:
                remove(host, name)
    settled(pair)
    assert peers(one, network_of(pair))[AGAIN] == two.address
    within(PATIENCE, True, lambda: pings(one, "aa", AGAIN))


def test_fault_host_rebooted(pair: Lab):
    """A new incarnation: what the old one had is free, and others are undisturbed."""
    one, two = pair.hosts
    run(one, "cc")
    with one.flood(f"{RUNNING}.4", sandbox="aa") as flood:
        reboot(two)
        two.start()
        took = within(PATIENCE, {f"{RUNNING}.2": "aa", f"{RUNNING}.4": "cc"}, pair.claims)
        within(PATIENCE, {}, lambda: peers(one, network_of(pair)))
        assert answer(one, "aa", "bb") == ""
        assert run(two, "dd") == f"{RUNNING}.3"
        settled(pair)
    assert flood.lost == []
    print(f"free {took:.2f} s after the daemon was back")


DAMAGES = {
    "bridge": "ip link del br0",
    "tunnel": "ip link del {tunnel}",
    "port": "ip link del {port}",
    "port off its bridge": "ip link set {port} nomaster",
    "tunnel off its bridge": "ip link set {tunnel} nomaster",
    "tunnel down": "ip link set {tunnel} down",
    "address": "ip address flush dev br0",
    "everything": "sh -c 'for link in br0 {tunnel} {port}; do ip link del $link; done'",
}


def links(namespace: str) -> list[tuple[str, str, bool, tuple[str, ...]]]:
    """Name, master, whether it is up, and IPv4 addresses."""
    told = json.loads(command("nsenter", f"--net={namespace}", "ip", "-4", "-j", "address").stdout)
    told += json.loads(command("nsenter", f"--net={namespace}", "ip", "-j", "link").stdout)
    found: dict[str, tuple[str, str, bool, tuple[str, ...]]] = {}
    for link in reversed(told):
        addresses = tuple(address["local"] for address in link.get("addr_info", ()))
        found[link["ifname"]] = link["ifname"], link.get("master", ""), "UP" in link["flags"], addresses
    return sorted(found.values())


@pytest.fixture
def forgiving(pair: Lab) -> Lab:
    """What was taken away too often is left alone; a new daemon has not seen that."""
    pair.hosts[0].restart()
    settled(pair)
    return pair


@pytest.mark.parametrize("damage", DAMAGES)
def test_fault_something_is_taken_away(forgiving: Lab, damage: str):
    """Where the overlay lives, by somebody else: it is back within a moment, with all that leads to other nodes."""
    pair = forgiving
    one, two = pair.hosts
    network = network_of(pair)
    namespace = place(one, network)
    before, ways = links(namespace), peers(one, network)
    port = next(name for name, master, *_ in before if name.startswith("veth") and master)
    words = {"tunnel": f"vx-{network[:12]}", "port": port}
    command("nsenter", f"--net={namespace}", "sh", "-c", DAMAGES[damage].format(**words))
    took = within(PATIENCE, (before, ways), lambda: (links(namespace), peers(one, network)))
    within(PATIENCE, (True, True), lambda: (pings(one, "aa", f"{RUNNING}.3"), pings(two, "bb", f"{RUNNING}.2")))
    assert one.api("GET", "/netplug/healing")["healed"]
    print(f"{damage} back after {took:.2f} s")


def test_fault_the_namespace_is_taken_away(forgiving: Lab):
    pair = forgiving
    one, two = pair.hosts
    network = network_of(pair)
    namespace = place(one, network)
    before, ways = links(namespace), peers(one, network)
    command("umount", namespace)
    command("rm", namespace)
    within(PATIENCE, (before, ways), lambda: (links(namespace), peers(one, network)))
    took = within(PATIENCE, True, lambda: pings(one, "aa", f"{RUNNING}.3"))
    command("nsenter", f"--net={namespace}", "ip", "link", "del", "br0")
    within(PATIENCE, (before, ways), lambda: (links(namespace), peers(one, network)))
    within(PATIENCE, True, lambda: pings(two, "bb", f"{RUNNING}.2"))
    print(f"{took:.2f} s")


def test_fault_a_node_that_never_returns(brief: Lab):
    """Its names are not answered; its addresses stay its own until somebody says that it will not come back."""
    one, two = brief.hosts
    within(PATIENCE, f"{RUNNING}.4", lambda: run(two, "cc"))
    run(one, "dd")
    two.kill9()
    stopped = within(PATIENCE, "", lambda: answer(one, "aa", "bb"))
    assert len(brief.claims()) == 4
    one.api("DELETE", "/netplug/nodes/n2")
    assert brief.claims() == {f"{RUNNING}.2": "aa", f"{RUNNING}.5": "dd"}
    within(PATIENCE, {}, lambda: peers(one, network_of(brief)))
    assert run(one, "ee", IPAMConfig={"IPv4Address": f"{RUNNING}.3"}) == f"{RUNNING}.3"
    # It does come back: what is still free is its own again, and what is not it gives up.
    two.start()
    within(PATIENCE, {"aa", "cc", "dd", "ee"}, lambda: set(brief.claims().values()))
    settled(brief)
    print(f"its names stopped after {stopped:.2f} s")
