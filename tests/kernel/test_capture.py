"""`netplug capture` with real packets: of a container, of a network, of the host; its lines, and its files as tshark reads them.

One host serves all tests: `web` answers pings and TCP, `db` idles, both on `demo`; `alone` has no network, `own` the host's.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netplug.cli import execute
from netplug.cli.demo_traffic import question
from netplug.kernel.namespaces import open_socket
from tests.capturing import Capture, capturing, tshark, without_times
from tests.hosts import OUTSIDE_ADDRESS, Host, Lan, command
from tests.kernel.conftest import NO_SERVER
from tests.kernel.daily import IDLE, ask, network, run, serve

PREFIX = "10.77.0"
GATEWAY, WEB, DB = f"{PREFIX}.1", f"{PREFIX}.2", f"{PREFIX}.3"


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with Lan() as lan, Host(lan, resolv_conf=NO_SERVER) as host:
        host.start()
        network(host, "demo", "--subnet", f"{PREFIX}.0/24")
        serve(host, "web", "--network", "demo", "-p", "8080:80")
        run(host, "db", "--network", "demo", *IDLE)
        run(host, "alone", "--network", "none", *IDLE)
        run(host, "own", "--network", "host", *IDLE)
        done = host.netplug("create", "--name", "idle", "--network", "demo", *IDLE)
        assert done.returncode == 0, done.stderr
        yield host


@pytest.fixture
def capture(host: Host) -> Callable[..., Capture]:
    return lambda *arguments: capturing(*arguments, environment=host.environment)  # type: ignore[return-value]


def ping(host: Host, source: str = "db", target: str = WEB, *options: str) -> bool:
    return host.inside(source, "ping", "-n", "-c1", "-W2", *options, target, check=False).returncode == 0


def lookup(host: Host, container: str, name: str) -> None:
    with open_socket(host.sandbox(container), socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect(("127.0.0.11", 53))
        client.send(question(name, 1))
        client.recv(512)


def port(host: Host, container: str) -> str:
    """`web/veth1234567`: its port on the bridge of `demo`, as `bridge` names it."""
    index = json.loads(host.inside(container, "ip", "-j", "link", "show", "eth0").stdout)[0]["link_index"]
    links = {link["ifindex"]: link["ifname"] for link in json.loads(host.run("ip", "-j", "link").stdout)}
    return f"{container}/{links[index]}"


def bridge(host: Host) -> str:
    return f"demo/br-{host.api('GET', '/networks/demo')['Id'][:12]}"


# Lines


def test_a_container(host: Host, capture: Callable[..., Capture]):
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


def test_ipv6(host: Host, capture: Callable[..., Capture]):
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


def test_a_network_shows_each_place_that_a_packet_passes(host: Host, capture: Callable[..., Capture]):
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


def test_what_a_rule_drops_comes_in_and_does_not_go_out(host: Host, capture: Callable[..., Capture]):
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


def test_the_host_is_its_way_out(host: Host, capture: Callable[..., Capture]):
    with capture("host", "tcp port 8080 and tcp[tcpflags] & tcp-syn != 0") as seen:
        assert ask(host.lan.outside.path, host.address, 8080) == OUTSIDE_ADDRESS

    assert seen.began == "capturing on uplink"
    assert [re.sub(r":\d{5}", ":PORT", line) for line in without_times(seen.lines)] == [
        f"uplink < {OUTSIDE_ADDRESS}:PORT → {host.address}:8080 TCP SYN",
        f"uplink > {host.address}:8080 → {OUTSIDE_ADDRESS}:PORT TCP SYN ACK",
    ]


def test_a_container_without_a_network_has_its_loopback(host: Host, capture: Callable[..., Capture]):
    with capture("alone") as seen:
        assert ping(host, "alone", "127.0.0.1")

    assert without_times(seen.lines) == [
        "alone/lo < 127.0.0.1 → 127.0.0.1 ICMP echo-request 1",
        "alone/lo < 127.0.0.1 → 127.0.0.1 ICMP echo-reply 1",
    ]


# Files


def test_a_file(host: Host, capture: Callable[..., Capture], tmp_path: Path):
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


def test_names_in_a_file(host: Host, capture: Callable[..., Capture], tmp_path: Path):
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


def test_lines_of_a_file(host: Host, capture: Callable[..., Capture], tmp_path: Path):
    path = tmp_path / "x.pcapng"
    with capture("db", "-w", str(path), "--print", "icmp or arp") as seen:
        assert ping(host)
    read = host.netplug("capture", "--read", str(path), "icmp")

    assert read.stdout.splitlines() == [line for line in seen.lines if "ICMP" in line]
    assert len(read.stdout.splitlines()) == 2
    assert read.stderr == "2 packets captured, 0 dropped by the kernel\n"


def test_files_become_one_in_the_order_of_times(host: Host, capture: Callable[..., Capture], tmp_path: Path):
    one, two, both = (tmp_path / f"{name}.pcapng" for name in ("one", "two", "both"))
    with capture("db", "-i", "eth0", "-w", str(one), "icmp"), capture("web", "-i", "eth0", "-w", str(two), "icmp"):
        assert ping(host)

    done = host.netplug("capture", "--read", str(two), "--read", str(one), "--write", str(both))

    assert (done.returncode, done.stderr) == (0, "4 packets captured, 0 dropped by the kernel\n")
    expected = [("db/eth0", "8"), ("web/eth0", "8"), ("web/eth0", "0"), ("db/eth0", "0")]
    assert tshark(both, "icmp", "frame.interface_name", "icmp.type") == expected


def test_a_vlan_tag_that_the_kernel_took_out_is_there(host: Host, capture: Callable[..., Capture], tmp_path: Path):
    path = tmp_path / "vlan.pcapng"
    frame = bytes.fromhex("ffffffffffff 02000000aa01 8100 000a 88b5") + b"tagged" + bytes(50)
    with capture("host", "-w", str(path)), open_socket(host.lan.outside.path, socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind(("uplink", 0))
        sender.send(frame)

    assert tshark(path, "vlan.id == 10", "frame.interface_name", "vlan.etype", "frame.len") == [("uplink", "0x88b5", str(len(frame)))]


def test_a_snapshot(host: Host, capture: Callable[..., Capture], tmp_path: Path):
    path = tmp_path / "short.pcapng"
    with capture("db", "-i", "eth0", "-s", "60", "-w", str(path), "icmp"):
        assert ping(host, "db", WEB, "-s", "1000")

    assert tshark(path, "icmp", "frame.len", "frame.cap_len") == [("1042", "60")] * 2


# Its end


def test_after_so_many_packets(host: Host, capture: Callable[..., Capture]):
    with capture("db", "-c", "3", "icmp") as seen:
        assert host.inside("db", "ping", "-n", "-c5", "-i0.01", WEB).returncode == 0
        seen.end(None)

    assert (len(seen.lines), seen.said, seen.code) == (3, ["3 packets captured, 0 dropped by the kernel"], 0)


def test_after_a_time(host: Host, capture: Callable[..., Capture]):
    with capture("db", "--timeout", "200ms", "icmp") as seen:
        seen.end(None)

    assert (seen.lines, seen.said, seen.code) == ([], ["0 packets captured, 0 dropped by the kernel"], 0)


def test_with_the_container(host: Host, capture: Callable[..., Capture]):
    """Our sockets must not keep its namespace alive."""
    run(host, "brief", "--network", "demo", *IDLE)
    with capture("brief") as seen:
        host.netplug("rm", "-f", "brief", check=True)
        seen.end(None)

    assert sorted(line for line in seen.said if "gone" in line) == ["brief/eth0 is gone", "brief/lo is gone"]
    assert seen.code == 0


def test_the_daemon_is_not_needed_any_more(host: Host, capture: Callable[..., Capture]):
    inside = f"--net={host.sandbox('db')}"
    try:
        with capture("db", "icmp") as seen:
            host.kill9()
            command("nsenter", inside, "ping", "-n", "-c1", "-W2", WEB)
    finally:
        host.start()

    assert len(seen.lines) == 2


def test_whoever_reads_has_had_enough(host: Host):
    argv = f"{sys.executable} -m netplug.cli capture db icmp | head -1"
    with subprocess.Popen(["sh", "-c", argv], env=host.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as shell:
        assert shell.stderr is not None
        shell.stderr.readline()
        assert host.inside("db", "ping", "-n", "-c5", "-i0.3", WEB).returncode == 0
        out, err = shell.communicate(timeout=30)

    assert (without_times(out.splitlines()), err) == ([f"db/eth0 > {DB} → {WEB} ICMP echo-request 1"], "")


# Honesty


def test_what_is_lost_is_counted(host: Host, capture: Callable[..., Capture], tmp_path: Path):
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


def test_nothing_is_changed(host: Host, capture: Callable[..., Capture]):
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
