"""`netplug capture` with real packets: what is seen of a container, a network, the host; and what is refused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from netplug.cli import execute
from tests.capturing import without_times
from tests.hosts import OUTSIDE_ADDRESS, Host
from tests.kernel.capture_lab import DB, GATEWAY, WEB, Capturing, bridge, capture, host, lookup, ping, port
from tests.kernel.daily import IDLE, ask, network, run

__all__ = ["capture", "host"]


def test_a_container(host: Host, capture: Capturing):
    host.inside("db", "ip", "neigh", "flush", "dev", "eth0")
    with capture("db") as seen:
        assert ping(host)
        lookup(host, "db", "web")
        lookup(host, "db", "nobody")
        assert ask(host.sandbox("db"), WEB, 80) == DB

    lines = without_times(seen.lines)
    assert seen.began == "capturing on db/lo, db/eth0"
    assert [line for line in lines if " ARP " in line and WEB in line][:3] == [
        f"db/eth0 > ARP who has {WEB}? tell {DB}",
        f"db/eth0 < ARP who has {WEB}? tell {DB}",  # its port is in hairpin mode: what is for all is for itself too
        f"db/eth0 < ARP {WEB} is at 02:42:0a:4d:00:02",
    ]
    assert [line for line in lines if "ICMP echo" in line] == [
        f"db/eth0 > {DB} → {WEB} ICMP echo-request 1",
        f"db/eth0 < {WEB} → {DB} ICMP echo-reply 1",
    ]
    assert [re.sub(r":\d+", ":PORT", line) for line in lines if "DNS" in line] == [
        "db/lo < 127.0.0.1:PORT → 127.0.0.11:PORT DNS A? web.",
        f"db/lo < 127.0.0.11:PORT → 127.0.0.1:PORT DNS web. A {WEB}",
        "db/lo < 127.0.0.1:PORT → 127.0.0.11:PORT DNS A? nobody.",
        "db/lo < 127.0.0.11:PORT → 127.0.0.1:PORT DNS nobody. A SERVFAIL",
    ]
    assert [line.split(" TCP ")[1] for line in lines if f" {WEB}:80 TCP" in line][:2] == ["SYN", "ACK"]
    assert seen.said == [f"{len(lines)} packets captured, 0 dropped by the kernel"]
    assert seen.code == 0
    assert [line.split()[0] for line in seen.lines] == sorted(line.split()[0] for line in seen.lines)


def test_ipv6(host: Host, capture: Capturing):
    network(host, "six", "--ipv6", "--subnet", "10.78.0.0/24", "--subnet", "fd78::/64")
    run(host, "six1", "--network", "six", *IDLE)
    run(host, "six2", "--network", "six", *IDLE)
    try:
        with capture("six1", "-i", "eth0", "icmp6") as seen:
            assert ping(host, "six1", "fd78::3")

        lines = without_times(seen.lines)
        assert "six1/eth0 > fd78::2 → fd78::3 ICMPv6 echo-request 1" in lines
        assert "six1/eth0 < fd78::3 → fd78::2 ICMPv6 echo-reply 1" in lines
        assert [line for line in lines if line.endswith("ICMPv6 who has fd78::3?")]
        assert [
            line
            for line in lines
            if line.endswith("ICMPv6 fd78::3 is at " + host.container("six2")["NetworkSettings"]["Networks"]["six"]["MacAddress"])
        ]
    finally:
        host.netplug("rm", "-f", "six1", "six2", check=True)
        host.netplug("network", "rm", "six", check=True)


def test_a_network_shows_each_place_that_a_packet_passes(host: Host, capture: Capturing):
    with capture("demo", "icmp") as seen:
        assert ping(host)
        assert ping(host, "db", GATEWAY)

    web, db, own = port(host, "web"), port(host, "db"), bridge(host)
    assert without_times(seen.lines) == [
        f"{db} < {DB} → {WEB} ICMP echo-request 1",
        f"{web} > {DB} → {WEB} ICMP echo-request 1",
        f"{web} < {WEB} → {DB} ICMP echo-reply 1",
        f"{db} > {WEB} → {DB} ICMP echo-reply 1",
        f"{db} < {DB} → {GATEWAY} ICMP echo-request 1",
        f"{own} < {DB} → {GATEWAY} ICMP echo-request 1",
        f"{own} > {GATEWAY} → {DB} ICMP echo-reply 1",
        f"{db} > {GATEWAY} → {DB} ICMP echo-reply 1",
    ]


def test_what_comes_while_it_runs(host: Host, capture: Capturing):
    """A container that comes to a network, and one that is connected to another network."""
    network(host, "more", "--subnet", "10.76.0.0/24")
    try:
        with capture("demo", "icmp") as on_network:
            run(host, "late", "--network", "demo", *IDLE)
            name = port(host, "late")
            assert on_network.heard() == f"also on {name}"
            with capture("late", "icmp") as in_container:
                host.netplug("network", "connect", "more", "late", check=True)
                assert in_container.heard() == "also on late/eth1"
                assert ping(host, "late", WEB)
                assert ping(host, "late", "10.76.0.1")
        web = port(host, "web")
        assert [line.split()[0] for line in without_times(on_network.lines)] == [name, web, web, name]
        assert [line.split()[0] for line in without_times(in_container.lines)] == ["late/eth0"] * 2 + ["late/eth1"] * 2
    finally:
        host.netplug("rm", "-f", "late", check=True)
        host.netplug("network", "rm", "more", check=True)


def test_what_a_rule_drops_comes_in_and_does_not_go_out(host: Host, capture: Capturing):
    network(host, "shut", "--subnet", "10.79.0.0/24", "-o", "com.docker.network.bridge.enable_icc=false")
    run(host, "shut1", "--network", "shut", *IDLE)
    run(host, "shut2", "--network", "shut", *IDLE)
    try:
        with capture("shut", "icmp") as seen:
            assert not ping(host, "shut1", "10.79.0.3")

        assert [re.sub(r"veth\w+", "PORT", line) for line in without_times(seen.lines)] == [
            "shut1/PORT < 10.79.0.2 → 10.79.0.3 ICMP echo-request 1"
        ]
    finally:
        host.netplug("rm", "-f", "shut1", "shut2", check=True)
        host.netplug("network", "rm", "shut", check=True)


def test_the_host_is_its_way_out(host: Host, capture: Capturing):
    with capture("host", "tcp port 8080 and tcp[tcpflags] & tcp-syn != 0") as seen:
        assert ask(host.lan.outside.path, host.address, 8080) == OUTSIDE_ADDRESS

    assert seen.began == "capturing on uplink"
    assert [re.sub(r":\d{5}", ":PORT", line) for line in without_times(seen.lines)] == [
        f"uplink < {OUTSIDE_ADDRESS}:PORT → {host.address}:8080 TCP SYN",
        f"uplink > {host.address}:8080 → {OUTSIDE_ADDRESS}:PORT TCP SYN ACK",
    ]


def test_a_container_without_a_network_has_its_loopback(host: Host, capture: Capturing):
    with capture("alone") as seen:
        assert ping(host, "alone", "127.0.0.1")

    assert without_times(seen.lines) == [
        "alone/lo < 127.0.0.1 → 127.0.0.1 ICMP echo-request 1",
        "alone/lo < 127.0.0.1 → 127.0.0.1 ICMP echo-reply 1",
    ]


# Errors

REFUSED = {
    ("nobody",): "No such container or network: nobody (asked of HOST)",
    ("db", "--type", "network"): "No such network: db (asked of HOST)",
    ("db", "--type", "pod"): '"pod" is none of container, network, host (asked of HOST)',
    ("idle",): "container idle is not running (asked of HOST)",
    ("own",): "container own is on the host's own network: capture on host (asked of HOST)",
    ("none",): "network none has no link that packets could be seen on (asked of HOST)",
    ("db", "port", "http", "and"): 'filter "port http and": can\'t parse filter expression: syntax error (see pcap-filter(7))',
    ("db", "-i", "eth7"): "there is no interface eth7 that is up: there are eth0, lo",
    ("db", "-w", "/etc/hostname"): "/etc/hostname exists already: remove it, or choose another name",
    ("db", "-w", "/nowhere/x.pcapng"): "cannot write /nowhere/x.pcapng: No such file or directory",
    ("db", "-w", "-", "--print"): "--print and --write - both want standard output",
    ("db", "--with", "/etc/hostname"): "/etc/hostname is a file: --with takes what another capture is just writing, --read takes files",
    ("db", "--with", "unix:///nowhere"): "Cannot connect to the netplug daemon at unix:///nowhere. Is the netplug daemon running?",
    ("--read", "/nowhere"): "cannot read /nowhere: No such file or directory",
    ("--read", "/etc/services"): "/etc/services is no pcapng file (of an older pcap file, editcap(1) makes one)",
    (
        "--read",
        "/nowhere",
        "-i",
        "eth0",
    ): "say what is to be captured: a container, a network, or host (with --read, files are all that is read)",
    (): "say what is to be captured: a container, a network, or host",
    ("db", "-c", "-1"): "--count and --snapshot-length are numbers above 0",
}


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_refusals(host: Host, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("NETPLUG_HOST", host.environment["NETPLUG_HOST"])

    assert execute(["capture", *arguments]) != 0

    said = capsys.readouterr()
    reason = said.err.removeprefix("netplug capture: ").replace(host.environment["NETPLUG_HOST"], "HOST")
    assert (said.out, reason) == ("", REFUSED[arguments] + "\n")


def test_only_root_sees_packets(host: Host):
    """Who may talk to the daemon may not yet see what passes."""
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", sys.executable, "-m", "netplug.cli", "capture", "db"],
        env={**host.environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "netplug capture: only root may see packets\n"


def test_a_failure_leaves_no_file(host: Host, tmp_path: Path):
    path = tmp_path / "x.pcapng"
    assert host.netplug("capture", "db", "-i", "eth7", "-w", str(path)).returncode == 1
    assert host.netplug("capture", "db", "-w", str(path), "no", "filter").returncode == 1
    assert not path.exists()
