"""`netplug capture`: its files, as tshark reads them; how it ends; what it loses, and that it changes nothing."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

from netplug.kernel.namespaces import open_socket
from tests.capturing import tshark, without_times
from tests.hosts import Host, command
from tests.kernel.capture_lab import DB, GATEWAY, WEB, Capturing, bridge, capture, host, lookup, ping, port
from tests.kernel.daily import IDLE, run

__all__ = ["capture", "host"]


def test_a_file(host: Host, capture: Capturing, tmp_path: Path):
    path = tmp_path / "demo.pcapng"
    with capture("demo", "-w", str(path)) as seen:
        assert ping(host)
        seen.end(signal.SIGTERM)  # what has come before it is in the file

    web, db = port(host, "web"), port(host, "db")
    assert (seen.code, seen.lines) == (0, [])
    assert path.stat().st_mode & 0o777 == 0o600
    assert tshark(path, "icmp", "frame.interface_name", "frame.interface_description", "icmp.type", "frame.packet_flags_direction") == [
        (db, "where container db is plugged into network demo", "8", "0x00000001"),
        (web, "where container web is plugged into network demo", "8", "0x00000002"),
        (web, "where container web is plugged into network demo", "0", "0x00000001"),
        (db, "where container db is plugged into network demo", "0", "0x00000002"),
    ]
    info = command("capinfos", str(path)).stdout
    assert "File timestamp precision:  nanoseconds (9)" in info
    assert "Strict time order:   True" in info
    assert re.findall(r"Name = (\S+)", info) == [web, db, bridge(host)]
    assert re.search(r"Number of packets:\s+(\d+)", info)[1] == seen.said[0].split()[0]  # type: ignore[index]


def test_names_in_a_file(host: Host, capture: Capturing, tmp_path: Path):
    """The resolver's port is none that Wireshark knows; the file says which it is."""
    path = tmp_path / "db.pcapng"
    with capture("db", "-w", str(path), "udp"):
        lookup(host, "db", "web")

    about = tshark(path, "udp", "frame.interface_name", "frame.interface_description")[0]
    found = re.fullmatch(r"in container db; DNS at 127.0.0.11 is on port (\d+) and \d+ here", about[1])
    assert (about[0], bool(found)) == ("db/lo", True)
    decode = f"udp.port=={found[1]},dns"  # type: ignore[index]
    assert tshark(path, "dns", "dns.qry.name", "dns.flags.response", "dns.a", decode_as=decode) == [
        ("web", "0", ""),
        ("web", "1", WEB),
    ]


def test_lines_of_a_file(host: Host, capture: Capturing, tmp_path: Path):
    path = tmp_path / "x.pcapng"
    with capture("db", "-w", str(path), "--print", "icmp or arp") as seen:
        assert ping(host)
    read = host.netplug("capture", "--read", str(path), "icmp")

    assert read.stdout.splitlines() == [line for line in seen.lines if "ICMP" in line]
    assert len(read.stdout.splitlines()) == 2
    assert read.stderr == "2 packets captured, 0 dropped by the kernel\n"


def test_files_become_one_in_the_order_of_times(host: Host, capture: Capturing, tmp_path: Path):
    one, two, both = (tmp_path / f"{name}.pcapng" for name in ("one", "two", "both"))
    with capture("db", "-i", "eth0", "-w", str(one), "icmp"), capture("web", "-i", "eth0", "-w", str(two), "icmp"):
        assert ping(host)

    done = host.netplug("capture", "--read", str(two), "--read", str(one), "--write", str(both))

    assert (done.returncode, done.stderr) == (0, "4 packets captured, 0 dropped by the kernel\n")
    expected = [("db/eth0", "8"), ("web/eth0", "8"), ("web/eth0", "0"), ("db/eth0", "0")]
    assert tshark(both, "icmp", "frame.interface_name", "icmp.type") == expected


def test_a_vlan_tag_that_the_kernel_took_out_is_there(host: Host, capture: Capturing, tmp_path: Path):
    path = tmp_path / "vlan.pcapng"
    frame = bytes.fromhex("ffffffffffff 02000000aa01 8100 000a 88b5") + b"tagged" + bytes(50)
    with capture("host", "-w", str(path)), open_socket(host.lan.outside.path, socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind(("uplink", 0))
        sender.send(frame)

    assert tshark(path, "vlan.id == 10", "frame.interface_name", "vlan.etype", "frame.len") == [("uplink", "0x88b5", str(len(frame)))]


def test_a_snapshot(host: Host, capture: Capturing, tmp_path: Path):
    path = tmp_path / "short.pcapng"
    with capture("db", "-i", "eth0", "-s", "60", "-w", str(path), "icmp"):
        assert ping(host, "db", WEB, "-s", "1000")

    assert tshark(path, "icmp", "frame.len", "frame.cap_len") == [("1042", "60")] * 2


# Its end


def test_after_so_many_packets(host: Host, capture: Capturing):
    with capture("db", "-c", "3", "icmp") as seen:
        assert host.inside("db", "ping", "-n", "-c5", "-i0.01", WEB).returncode == 0
        seen.end(None)

    assert (len(seen.lines), seen.said, seen.code) == (3, ["3 packets captured, 0 dropped by the kernel"], 0)


def test_after_a_time(host: Host, capture: Capturing):
    with capture("db", "--timeout", "200ms", "icmp") as seen:
        seen.end(None)

    assert (seen.lines, seen.said, seen.code) == ([], ["0 packets captured, 0 dropped by the kernel"], 0)


def test_with_the_container(host: Host, capture: Capturing):
    """Our sockets must not keep its namespace alive."""
    run(host, "brief", "--network", "demo", *IDLE)
    with capture("brief") as seen:
        host.netplug("rm", "-f", "brief", check=True)
        seen.end(None)

    assert sorted(line for line in seen.said if "gone" in line) == ["brief/eth0 is gone", "brief/lo is gone"]
    assert seen.code == 0


def test_the_daemon_is_not_needed_any_more(host: Host, capture: Capturing):
    inside = f"--net={host.sandbox('db')}"
    try:
        with capture("db", "icmp") as seen:
            host.kill9()
            command("nsenter", inside, "ping", "-n", "-c1", "-W2", WEB)
    finally:
        host.start()

    assert len(seen.lines) == 2


def test_whoever_reads_has_had_enough(host: Host):
    argv = f"{sys.executable} -m netplug.cli capture db 'icmp[icmptype] == 8' | head -1"
    with subprocess.Popen(["sh", "-c", argv], env=host.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as shell:
        assert shell.stderr is not None
        shell.stderr.readline()
        assert ping(host)  # and nothing comes after it, which would meet a broken pipe
        out, err = shell.communicate(timeout=30)

    assert (without_times(out.splitlines()), err) == ([f"db/eth0 > {DB} → {WEB} ICMP echo-request 1"], "")


# Honesty


def test_what_is_lost_is_counted(host: Host, capture: Capturing, tmp_path: Path):
    """More than the ring holds comes while the command does not run: what was captured and what was dropped are what was sent."""
    path = tmp_path / "flood.pcapng"
    with capture("db", "-i", "eth0", "-w", str(path), "udp dst port 9") as seen:
        seen.process.send_signal(signal.SIGSTOP)
        with open_socket(host.sandbox("db"), socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sent = sum(sender.sendto(bytes(1400), (GATEWAY, 9)) == 1400 for _ in range(14000))
        seen.process.send_signal(signal.SIGCONT)

    told = re.fullmatch(r"(\d+) packets captured, (\d+) dropped by the kernel", seen.said[0])
    assert told, seen.said
    captured, dropped = map(int, told.groups())
    assert captured + dropped == sent == 14000
    assert dropped > 0
    assert seen.said[1:] == [f"  db/eth0: {dropped} of {sent} dropped"]
    assert len(tshark(path, "udp.dstport == 9", "frame.number")) == captured
    assert re.search(r"Number of packets:\s+(\d+)", command("capinfos", "-c", "-M", str(path)).stdout)[1] == str(captured)  # type: ignore[index]


def test_nothing_is_changed(host: Host, capture: Capturing):
    def links() -> dict[str, tuple[int, list[str]]]:
        found = [*json.loads(host.run("ip", "-j", "-d", "link").stdout), *json.loads(host.inside("db", "ip", "-j", "-d", "link").stdout)]
        return {link["ifname"]: (link["promiscuity"], link["flags"]) for link in found}

    before = links()
    with capture("demo"), capture("db"):
        assert links() == before


def test_a_daemon_with_other_mounts(host: Host):
    """As on a host of a lab: paths that the daemon says are not there for us."""
    hidden = f"mount -t tmpfs none {host.run_directory}/netns && exec {sys.executable} -m netplug.cli capture db -c 1 icmp"
    with subprocess.Popen(
        ["unshare", "-m", "sh", "-c", hidden], env=host.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as shell:
        assert shell.stderr is not None
        assert shell.stderr.readline() == "capturing on db/lo, db/eth0\n"
        assert ping(host)
        out, _ = shell.communicate(timeout=30)

    assert without_times(out.splitlines()) == [f"db/eth0 > {DB} → {WEB} ICMP echo-request 1"]
