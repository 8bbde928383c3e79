"""`netplug doctor` on a node of a cluster: entries for containers on other nodes that lead elsewhere, and some for nobody.

What is missing heals by itself; these differences nobody tells of.
"""

from __future__ import annotations

import re

import pytest

from netplug.plan import LINK_GROUP, ROUTE_PROTOCOL
from tests.cluster.lab import PATIENCE, Lab, network_of, remove, run, within
from tests.hosts import Host

DAMAGES = {
    "fdb elsewhere": ("bridge fdb replace {mac} dev {link} dst 203.0.113.99 self", "way to {mac} on node .* leads elsewhere: 203.0.113.99"),
    "fdb for nobody": ("bridge fdb add 02:00:00:00:00:99 dev {link} dst 203.0.113.99 self", "1 entries for peers that are not there"),
    "neighbour elsewhere": (
        f"ip neigh replace 10.90.0.3 lladdr 02:00:00:00:00:99 dev {{link}} nud permanent proto {ROUTE_PROTOCOL}",
        "neighbour 10.90.0.3 leads elsewhere: 02:00:00:00:00:99",
    ),
    "MTU of the tunnel": ("ip link set {link} mtu 1300", "{link} has MTU 1300 instead of 1450"),
    "tunnel cut off from its bridge": ("bridge link set dev {link} isolated on", "{link} has isolated on instead of off"),
    "tunnel of another VNI and port": (
        f"ip link del {{link}} && ip link add {{link}} group {LINK_GROUP} mtu 1450 up master br0 type vxlan id 4711"
        " local 203.0.113.1 dstport 4790 nolearning proxy",
        "interface {link} leads elsewhere: VNI 4711, UDP port 4790, from 203.0.113.1",
    ),
    "neighbour for nobody": (
        f"ip neigh add 10.90.0.99 lladdr 02:00:00:00:00:99 dev {{link}} nud permanent proto {ROUTE_PROTOCOL}",
        "1 entries for peers that are not there",
    ),
}


def examine(host: Host) -> list[str]:
    return [f"{found['Subject']}: {found['Found']}" for found in host.api("GET", "/netplug/doctor")]


@pytest.mark.parametrize("damage", DAMAGES)
def test_entries_for_other_nodes(pair: Lab, damage: str):
    host = pair.hosts[0]
    network = network_of(pair)[:12]
    endpoint = pair.hosts[1].container("bb")["NetworkSettings"]["Networks"]["demo"]
    text, expected = (one.format(mac=endpoint["MacAddress"], link=f"vx-{network}") for one in DAMAGES[damage])
    assert examine(host) == []

    place = next(path for path in (host.run_directory / "netns").iterdir() if path.name.startswith("1-"))
    host.run("nsenter", f"--net={place}", "sh", "-c", text)

    # What went with a link comes back by itself.
    within(PATIENCE, [True], lambda: [bool(re.fullmatch(f"network demo: {expected}", found)) for found in examine(host)])
    assert [one["Error"] for one in host.api("POST", "/netplug/doctor")] == [""]
    assert examine(host) == []
    assert host.inside("aa", "ping", "-c1", "-W2", "10.90.0.3").returncode == 0


def test_what_is_owed_to_the_cluster(pair: Lab):
    """A container that goes while the cluster's store is away has its address there until that is back."""
    host = pair.hosts[0]
    run(host, "dd")
    for member in pair.etcd.running:
        member.stop()

    remove(host, "dd")

    assert [re.sub(r"[0-9a-f]{12}", "ID", found) for found in examine(host)] == [
        "the cluster: endpoint ID of network ID is gone here, and the cluster's store has it still"
    ]
    pair.etcd.heal()
    within(PATIENCE, [], lambda: examine(host))
