"""`netplug capture` on an overlay: a frame from its container's port to the other one's, on two hosts, outside and inside the tunnel."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.capturing import Capture, capturing, tshark, without_times
from tests.cluster.lab import Lab, network_of, overlay, pings, place
from tests.hosts import Host, command

AA, BB = "10.90.0.2", "10.90.0.3"


def vni(host: Host, network: str) -> int:
    argv = ("nsenter", f"--net={place(host, network)}", "ip", "-j", "-d", "link", "show", f"vx-{network[:12]}")
    return int(json.loads(command(*argv).stdout)[0]["linkinfo"]["info_data"]["id"])


def port(host: Host, network: str, container: str) -> str:
    """Where the container is plugged in."""
    index = json.loads(host.inside(container, "ip", "-j", "link", "show", "eth0").stdout)[0]["link_index"]
    links = json.loads(command("nsenter", f"--net={place(host, network)}", "ip", "-j", "link").stdout)
    return next(str(link["ifname"]) for link in links if link["ifindex"] == index)


@pytest.fixture
def way(pair: Lab) -> list[str]:
    """The names of the interfaces that a frame from `aa` to `bb` passes."""
    (one, two), network = pair.hosts[:2], network_of(pair)
    tunnel = f"demo/vx-{network[:12]}"
    here = [f"n1/aa/{port(one, network, 'aa')}", f"n1/{tunnel}", "n1/uplink"]
    return [*here, "n2/uplink", f"n2/{tunnel}", f"n2/bb/{port(two, network, 'bb')}"]


def addresses(name: str, one: Host, two: Host) -> tuple[str, str]:
    """What tshark says of source and target of a frame from `aa` to `bb` seen there: in the underlay the nodes' come first."""
    return (f"{one.address},{AA}", f"{two.address},{BB}") if name.endswith("uplink") else (AA, BB)


def test_two_hosts_in_one_file(pair: Lab, way: list[str], tmp_path: Path):
    one, two = pair.hosts[:2]
    path = tmp_path / "both.pcapng"
    assert pings(one, "aa", BB)

    with capturing("demo", "icmp", "--with", f"unix://{two.socket}", "-w", str(path), environment=one.environment) as seen:
        assert pings(one, "aa", BB)
        # The nodes' own traffic is none of the network's.
        one.run("ping", "-c1", two.address)

    number = str(vni(one, network_of(pair)))
    found = tshark(path, "icmp.type == 8", "frame.interface_name", "ip.src", "ip.dst", "vxlan.vni")
    assert found == [(name, *addresses(name, one, two), number if name.endswith("uplink") else "") for name in way]
    replies = tshark(path, "icmp.type == 0", "frame.interface_name")
    assert replies == [(name,) for name in reversed(way)]
    assert seen.said == ["12 packets captured, 0 dropped by the kernel"]


def test_lines_of_two_hosts(pair: Lab, way: list[str]):
    one, two = pair.hosts[:2]
    number = vni(one, network_of(pair))
    with capturing("demo", "icmp[icmptype] == 8", "--with", f"unix://{two.socket}", environment=one.environment) as seen:
        assert pings(one, "aa", BB)

    inner = f"{AA} → {BB} ICMP echo-request 1"
    outer = f"VXLAN {number}: {inner}"
    lines = without_times(seen.lines)
    assert [line.split()[:2] for line in lines] == [[name, sign] for name, sign in zip(way, "<>><<>", strict=True)]
    assert [line.split(" ", 2)[2] for line in (lines[0], lines[1], lines[4], lines[5])] == [inner] * 4
    for line in lines[2:4]:
        sender, _, receiver, rest = line.split(" ", 2)[2].split(" ", 3)
        assert (sender.split(":")[0], receiver, rest) == (one.address, f"{two.address}:4789", outer)


@pytest.fixture
def far(pair: Lab) -> Iterator[subprocess.Popen[bytes]]:
    """A capture on the other node that writes into a pipe, as behind ssh."""
    argv = [sys.executable, "-m", "netplug.cli", "capture", "demo", "icmp", "-w", "-"]
    process = subprocess.Popen(argv, env=pair.hosts[1].environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert process.stderr.readline().startswith(b"capturing on ")
    yield process
    process.kill()
    process.communicate()


def test_what_another_host_sends_by_a_pipe(pair: Lab, way: list[str], far: subprocess.Popen[bytes], tmp_path: Path):
    """`ssh n2 netplug capture demo -w - | netplug capture demo --with - -w both.pcapng`"""
    one = pair.hosts[0]
    path = tmp_path / "both.pcapng"
    assert far.stdout is not None
    seen = Capture("demo", "icmp", "--with", "-", "-w", str(path), environment=one.environment, stdin=far.stdout)
    try:
        assert pings(one, "aa", BB)
        far.terminate()
        far.wait(10)
        seen.end()
    finally:
        seen.kill()

    found = tshark(path, "icmp.type == 8", "frame.interface_name")
    assert found == [(name,) for name in way]
    assert seen.said == ["12 packets captured, 0 dropped by the kernel"]


def test_a_node_that_has_nothing_of_a_network(pair: Lab):
    """The networks of the cluster are known everywhere; a node is on one from its first container."""
    one, two = pair.hosts[:2]
    overlay(one, "empty", IPAM={"Config": [{"Subnet": "10.91.0.0/24"}]})
    done = one.netplug("capture", "empty")
    assert done.stderr == (
        "netplug capture: network empty has no container on this node, so nothing of it is here: "
        f"ask a node that has one (asked of {one.environment['NETPLUG_HOST']})\n"
    )
    assert done.returncode == 1
    # No name that an id can begin with.
    one.api("POST", "/networks/create", {"Name": "only-here"})
    done = one.netplug("capture", "only-here", "--with", f"unix://{two.socket}")
    assert done.stderr == f"netplug capture: No such container or network: only-here (asked of unix://{two.socket})\n"
    one.api("DELETE", "/networks/only-here")


def test_the_host_of_a_cluster(pair: Lab):
    """The packets between nodes, as they are."""
    one, two = pair.hosts[:2]
    with capturing("host", f"host {two.address} and udp", "-c", "1", environment=one.environment) as seen:
        assert pings(one, "aa", BB)
        seen.end(None)

    assert seen.began == "capturing on n1/uplink"
    (line,) = without_times(seen.lines)
    assert line.endswith(f"→ {two.address}:4789 VXLAN {vni(one, network_of(pair))}: {AA} → {BB} ICMP echo-request 1")


def test_a_file_is_asked_as_the_network_was(pair: Lab, way: list[str], tmp_path: Path):
    """Of what a tunnel carries, a filter is asked when a file is read, too."""
    one = pair.hosts[0]
    path = tmp_path / "all.pcapng"
    with capturing("demo", "-w", str(path), environment=one.environment):
        assert pings(one, "aa", BB)

    def names(expression: str) -> list[str]:
        done = one.netplug("capture", "--read", str(path), expression)
        return [line.split()[0] for line in without_times(done.stdout.splitlines())]

    assert names("icmp[icmptype] == 8") == way[:3]
    assert names("udp port 4789") == []
