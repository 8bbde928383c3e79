"""Names as containers see them: their files in /etc, and what 127.0.0.11 answers, from the daemon's flags down to the packets."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dnslib
import pytest

from netplug.cli.demo_hosts import end_processes
from netplug.kernel.namespaces import open_socket
from tests.hosts import OUTSIDE_ADDRESS, Host, Lan
from tests.kernel.daily import IDLE, network, run

DEADLINE = 10.0
REFUSING = "nameserver 127.0.0.1\n"
"""A host's resolv.conf that leads nowhere, and says so at once."""


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for what has no event that could be awaited."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"not after {DEADLINE} s: {what}"
        time.sleep(0.02)


class Upstream:
    """A DNS server at `server`, port 53, in the namespace at `path`: every A is `address`. `asked`: (name, who asked)."""

    def __init__(self, path: str, server: str, address: str) -> None:
        self.address, self.asked = address, list[tuple[str, str]]()
        self._socket = open_socket(path, socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((server, 53))
        self._ended, self._end = os.pipe()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Upstream:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._end)
        self._thread.join()
        self._socket.close()
        os.close(self._ended)

    def _serve(self) -> None:
        while self._ended not in select.select([self._socket, self._ended], [], [])[0]:
            packet, peer = self._socket.recvfrom(4096)
            query = dnslib.DNSRecord.parse(packet)
            self.asked.append((str(query.q.qname).rstrip("."), peer[0]))
            reply = query.reply()
            if query.q.qtype == dnslib.QTYPE.A:
                reply.add_answer(dnslib.RR(query.q.qname, dnslib.QTYPE.A, rdata=dnslib.A(self.address), ttl=60))
            self._socket.sendto(reply.pack(), peer)


def ask(sandbox: str, name: str, kind: str = "A", *, tcp: bool = False, size: int = 0) -> dnslib.DNSRecord:
    """What 127.0.0.11 says in the namespace at `sandbox`. `size`: of the answers that we take, by EDNS. TimeoutError if nobody answers."""
    query = dnslib.DNSRecord.question(name, kind)
    if size:
        query.add_ar(dnslib.EDNS0(udp_len=size))
    packet = query.pack()
    with open_socket(sandbox, socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as client:
        client.settimeout(DEADLINE)
        client.connect(("127.0.0.11", 53))
        client.sendall(len(packet).to_bytes(2, "big") + packet if tcp else packet)
        answer = dnslib.DNSRecord.parse(framed(client) if tcp else client.recv(65536))
    assert (answer.header.id, answer.header.qr, answer.q) == (query.header.id, 1, query.q)
    return answer


def framed(client: socket.socket) -> bytes:
    """One message of a DNS connection: its length comes before it."""
    data = b""
    while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2], "big"):
        part = client.recv(65536)
        assert part, "the connection was closed before the answer was whole"
        data += part
    return data[2:]


def lookup(host: Host, container: str, name: str, kind: str = "A", *, tcp: bool = False, size: int = 0) -> dnslib.DNSRecord:
    return ask(host.sandbox(container), name, kind, tcp=tcp, size=size)


def texts(answer: dnslib.DNSRecord) -> list[str]:
    return [str(record.rdata) for record in answer.rr]


def found(host: Host, container: str, name: str, kind: str = "A") -> list[str]:
    return texts(lookup(host, container, name, kind))


def shown(host: Host, container: str, file: str) -> str:
    done = host.netplug("exec", container, "cat", f"/etc/{file}")
    assert done.returncode == 0, done.stderr
    return done.stdout


# The files


def test_resolv_conf_by_docker_s_rules(hosts: Callable[..., Host]):
    text = "# ours\nnameserver 127.0.0.53\nnameserver 203.0.113.1\nnameserver ::1\nsearch lan.example\noptions timeout:3 ndots:2\n"
    host = hosts(resolv_conf=text)
    network(host, "demo")
    run(host, "plain", *IDLE)
    run(host, "named", "--network", "demo", *IDLE)
    asked = ("--dns", "198.51.100.7", "--dns", "198.51.100.8", "--dns-search", "corp.example", "--dns-option", "ndots:3")
    run(host, "own", *asked, *IDLE)
    run(host, "both", "--network", "demo", *asked, *IDLE)
    run(host, "bare", "--network", "none", *IDLE)
    run(host, "shared", "--network", "host", *IDLE)
    assert shown(host, "plain", "resolv.conf") == "search lan.example\nnameserver 203.0.113.1\noptions timeout:3 ndots:2\n"
    assert shown(host, "named", "resolv.conf") == "search lan.example\nnameserver 127.0.0.11\noptions timeout:3 ndots:0\n"
    own = "search corp.example\nnameserver 198.51.100.7\nnameserver 198.51.100.8\noptions ndots:3\n"
    assert shown(host, "own", "resolv.conf") == own
    assert shown(host, "both", "resolv.conf") == "search corp.example\nnameserver 127.0.0.11\noptions ndots:3\n"
    assert shown(host, "shared", "resolv.conf") == text
    assert host.netplug("network", "connect", "demo", "own").returncode == 0
    assert "nameserver 127.0.0.11\n" in shown(host, "own", "resolv.conf")
    assert host.netplug("network", "disconnect", "demo", "own").returncode == 0
    assert shown(host, "own", "resolv.conf") == own


def test_only_local_servers_leave_the_public_ones(host: Host):
    run(host, "plain", *IDLE)
    assert shown(host, "plain", "resolv.conf") == "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"


def test_hosts_and_hostname(host: Host):
    network(host, "--subnet", "10.60.0.0/24", "demo")
    network(host, "--subnet", "10.61.0.0/24", "other")
    options = ("--hostname", "web.lan.example", "--add-host", "db:10.9.9.9", "--add-host", "gate:host-gateway")
    run(host, "web", "--network", "demo", *options, *IDLE)
    run(host, "plain", "--network", "demo", *IDLE)
    own = host.container_address("web", "demo")
    assert host.netplug("exec", "web", "hostname").stdout == "web.lan.example\n"
    assert shown(host, "web", "hostname") == "web.lan.example\n"
    lines = shown(host, "web", "hosts").splitlines()
    assert lines[0] == "127.0.0.1\tlocalhost"
    gateway = host.api("GET", "/networks/bridge")["IPAM"]["Config"][0]["Gateway"]
    assert lines[-3:] == ["10.9.9.9\tdb", f"{gateway}\tgate", f"{own}\tweb.lan.example web"]
    short = host.container("plain")["Id"][:12]
    assert host.netplug("exec", "plain", "hostname").stdout == f"{short}\n"
    assert shown(host, "plain", "hosts").splitlines()[-1] == f"{host.container_address('plain', 'demo')}\t{short}"
    assert host.netplug("network", "connect", "other", "plain").returncode == 0
    assert shown(host, "plain", "hosts").splitlines()[-1] == f"{host.container_address('plain', 'other')}\t{short}"
    assert host.netplug("network", "disconnect", "other", "plain").returncode == 0
    assert "10.61.0." not in shown(host, "plain", "hosts")
    wrong = host.netplug("run", "--rm", "--add-host", "db", "host", "true")
    assert wrong.returncode == 125
    assert "bad format for add-host" in wrong.stderr


def test_a_change_of_the_host_s_resolv_conf_reaches_running_containers(hosts: Callable[..., Host], lan: Lan):
    host = hosts(resolv_conf=f"nameserver {OUTSIDE_ADDRESS}\n")
    network(host, "demo")
    run(host, "plain", *IDLE)
    run(host, "named", "--network", "demo", *IDLE)
    lan.outside.ip("address", "add", "203.0.113.2/24", "dev", "uplink")
    with Upstream(lan.outside.path, OUTSIDE_ADDRESS, "192.0.2.1") as old, Upstream(lan.outside.path, "203.0.113.2", "192.0.2.2") as new:
        assert shown(host, "plain", "resolv.conf") == f"nameserver {OUTSIDE_ADDRESS}\n"
        assert found(host, "named", "www.example.org") == ["192.0.2.1"]
        assert old.asked == [("www.example.org", host.address)], "asked by the host"
        replacement = host.resolv_conf.with_suffix(".new")
        replacement.write_text("search new.example\nnameserver 203.0.113.2\n")
        replacement.replace(host.resolv_conf)
        until(lambda: found(host, "named", "www.example.org") == ["192.0.2.2"], "the new server is asked")
        until(lambda: shown(host, "plain", "resolv.conf") == "search new.example\nnameserver 203.0.113.2\n", "the file is new")
        until(lambda: "search new.example\nnameserver 127.0.0.11\n" in shown(host, "named", "resolv.conf"), "the file is new")
        assert new.asked[0] == ("www.example.org", host.address)
        # And one that was changed while no daemon was there.
        inside = host.sandbox("named")
        host.stop()
        host.resolv_conf.write_text(f"nameserver {OUTSIDE_ADDRESS}\n")
        until(lambda: texts(ask(inside, "www.example.org")) == ["192.0.2.1"], "the old server is asked again")
        host.start()
        assert shown(host, "plain", "resolv.conf") == f"nameserver {OUTSIDE_ADDRESS}\n"


def test_with_no_server_on_the_host_the_public_ones_are_asked(hosts: Callable[..., Host], lan: Lan):
    """Those that containers on the default bridge are told of then; and a file that gets its servers is followed."""
    host = hosts(resolv_conf="")
    network(host, "demo")
    run(host, "plain", *IDLE)
    run(host, "named", "--network", "demo", *IDLE)
    lan.outside.ip("address", "add", "8.8.8.8/32", "dev", "lo")
    lan.outside.ip("address", "add", "203.0.113.2/24", "dev", "uplink")
    with Upstream(lan.outside.path, "8.8.8.8", "192.0.2.1") as public, Upstream(lan.outside.path, "203.0.113.2", "192.0.2.2"):
        assert "nameserver 8.8.8.8\n" in shown(host, "plain", "resolv.conf")
        assert found(host, "named", "www.example.org") == ["192.0.2.1"]
        assert public.asked == [("www.example.org", host.address)], "asked by the host"
        host.resolv_conf.write_text("nameserver 203.0.113.2\n")
        until(lambda: found(host, "named", "www.example.org") == ["192.0.2.2"], "the host's server is asked")
        host.resolv_conf.write_text("")
        until(lambda: found(host, "named", "www.example.org") == ["192.0.2.1"], "the public one is asked again")


# What is forwarded, and where


def test_an_internal_network_forwards_nothing(hosts: Callable[..., Host], lan: Lan):
    host = hosts(resolv_conf=f"nameserver {OUTSIDE_ADDRESS}\n")
    network(host, "--internal", "inner")
    network(host, "demo")
    for name in ("web", "client"):
        run(host, name, "--network", "inner", *IDLE)
    with Upstream(lan.outside.path, OUTSIDE_ADDRESS, "192.0.2.1") as upstream:
        assert lookup(host, "client", "www.example.org").header.rcode != dnslib.RCODE.NOERROR
        assert found(host, "client", "web") == [host.container_address("web", "inner")]
        assert upstream.asked == []
        assert host.netplug("network", "connect", "demo", "client").returncode == 0
        assert found(host, "client", "www.example.org") == ["192.0.2.1"]
        assert host.netplug("network", "disconnect", "demo", "client").returncode == 0
        assert lookup(host, "client", "www.example.org").header.rcode != dnslib.RCODE.NOERROR
        assert len(upstream.asked) == 1


def test_the_servers_of_dns_are_asked_from_the_container(host: Host):
    network(host, "--subnet", "10.62.0.0/24", "demo")
    run(host, "server", "--network", "demo", "--ip", "10.62.0.53", *IDLE)
    run(host, "client", "--network", "demo", "--dns", "10.62.0.53", *IDLE)
    run(host, "inward", "--network", "demo", "--dns", "127.0.0.1", *IDLE)
    run(host, "other", "--network", "demo", *IDLE)
    with Upstream(host.sandbox("server"), "10.62.0.53", "192.0.2.1") as upstream:
        assert found(host, "client", "www.example.org") == ["192.0.2.1"]
        assert upstream.asked == [("www.example.org", host.container_address("client", "demo"))]
        assert lookup(host, "other", "www.example.org").header.rcode == dnslib.RCODE.SERVFAIL
        host.restart()
        assert found(host, "client", "again.example.org") == ["192.0.2.1"]
        assert len(upstream.asked) == 2
    with Upstream(host.sandbox("inward"), "127.0.0.1", "192.0.2.3"):
        assert found(host, "inward", "www.example.org") == ["192.0.2.3"]


# Our own names


def test_an_alias_of_two_containers_gives_both_in_turn(host: Host):
    network(host, "demo")
    for name in ("one", "two"):
        run(host, name, "--network", "demo", "--network-alias", "www", "--network-alias", name.upper(), *IDLE)
    run(host, "client", "--network", "demo", *IDLE)
    both = {host.container_address(name, "demo") for name in ("one", "two")}
    answers = [found(host, "client", "www") for _ in range(6)]
    assert all(set(answer) == both for answer in answers)
    assert {answer[0] for answer in answers} == both
    assert host.netplug("rm", "-f", "one").returncode == 0
    assert found(host, "client", "www") == [host.container_address("two", "demo")]


def test_a_name_goes_with_its_container(host: Host):
    network(host, "demo")
    run(host, "client", "--network", "demo", *IDLE)
    for end in (("network", "disconnect", "demo", "web"), ("stop", "-t", "0", "web"), ("rm", "-f", "web")):
        run(host, "web", "--network", "demo", "--network-alias", "www", *IDLE)
        short = host.container("web")["Id"][:12]
        for name in ("web", "www", "web.demo", short):
            assert found(host, "client", name) == [host.container_address("web", "demo")]
        assert host.netplug(*end).returncode == 0
        for name in ("web", "www", "web.demo", short):
            assert found(host, "client", name) == [], f"{name} after {end[0]}"
        host.netplug("rm", "-f", "web")


def test_answers_over_tcp_and_with_edns(hosts: Callable[..., Host], lan: Lan):
    host = hosts(resolv_conf=f"nameserver {OUTSIDE_ADDRESS}\n")
    network(host, "demo")
    for name in ("one", "two", "client"):
        run(host, name, "--network", "demo", "--network-alias", "www", *IDLE)
    everyone = sorted(host.container_address(name, "demo") for name in ("one", "two", "client"))
    assert sorted(texts(lookup(host, "client", "www", tcp=True))) == everyone
    wide = lookup(host, "client", "www", size=4096)
    assert sorted(texts(wide)) == everyone
    assert [record.rtype for record in wide.ar] == [dnslib.QTYPE.OPT]
    with Upstream(lan.outside.path, OUTSIDE_ADDRESS, "192.0.2.1"):
        assert texts(lookup(host, "client", "www.example.org", size=4096)) == ["192.0.2.1"]


def test_reverse_and_service_records(host: Host):
    network(host, "--subnet", "10.63.0.0/24", "demo")
    run(host, "web", "--network", "demo", "--ip", "10.63.0.9", "--network-alias", "www", *IDLE)
    run(host, "client", "--network", "demo", *IDLE)
    assert found(host, "client", "9.0.63.10.in-addr.arpa", "PTR") == ["web.demo."]
    service = lookup(host, "client", "_8080._tcp.web", "SRV")
    assert [(record.rdata.port, str(record.rdata.target)) for record in service.rr] == [(8080, "web.")]
    assert [str(record.rdata) for record in service.ar if record.rtype == dnslib.QTYPE.A] == ["10.63.0.9"]
    nothing = lookup(host, "client", "web", "AAAA")
    assert (nothing.header.rcode, nothing.rr) == (dnslib.RCODE.NOERROR, [])
    assert found(host, "client", "WeB.DeMo") == ["10.63.0.9"]


def test_names_of_a_container_on_two_networks(host: Host):
    network(host, "--subnet", "10.64.0.0/24", "alpha")
    network(host, "--subnet", "10.65.0.0/24", "beta")
    run(host, "web", "--network", "name=alpha,ip=10.64.0.9,alias=front", "--network", "name=beta,ip=10.65.0.9,alias=back", *IDLE)
    run(host, "one", "--network", "alpha", *IDLE)
    run(host, "both", "--network", "alpha", "--network", "beta", *IDLE)
    assert found(host, "one", "web") == found(host, "one", "front") == ["10.64.0.9"]
    assert found(host, "one", "back") == found(host, "one", "web.beta") == []
    assert "10.64.0.9" in found(host, "both", "web")
    assert found(host, "both", "web.alpha") == found(host, "both", "front") == ["10.64.0.9"]
    assert found(host, "both", "web.beta") == found(host, "both", "back") == ["10.65.0.9"]
    assert host.netplug("network", "disconnect", "alpha", "web").returncode == 0
    assert found(host, "one", "web") == []
    assert found(host, "both", "web") == found(host, "both", "web.beta") == ["10.65.0.9"]


# Life and death


@pytest.mark.parametrize("daemon", ["lives", "restarts"])
def test_names_come_back_when_the_resolver_is_killed(host: Host, daemon: str):
    network(host, "demo")
    for name in ("web", "client"):
        run(host, name, "--network", "demo", *IDLE)
    pid = host.resolver_pid()
    assert pid
    if daemon == "restarts":
        host.kill9()
    os.kill(pid, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pid}/fd").is_dir() or not os.listdir(f"/proc/{pid}/fd"), "it is dead")
    if daemon == "restarts":
        host.start()
    expected = [host.container_address("web", "demo")]

    def answered() -> bool:
        with contextlib.suppress(OSError):
            return found(host, "client", "web") == expected
        return False

    until(answered, "names are answered again")
    assert host.resolver_pid() not in (None, pid)
    assert texts(lookup(host, "client", "web", tcp=True)) == expected
    run(host, "new", "--network", "demo", *IDLE)
    assert found(host, "client", "new") == [host.container_address("new", "demo")]
    assert found(host, "new", "web") == expected


def test_whoever_ends_daemon_and_resolver_at_once_has_ended_both(host: Host):
    """As `ip netns pids … | xargs kill` does: the daemon is not to start another process on its way out."""
    for first_the_daemon in (True, False):
        resolver, daemon = host.resolver_pid(), host.daemon
        assert resolver
        assert daemon is not None
        for pid in (daemon.pid, resolver) if first_the_daemon else (resolver, daemon.pid):
            os.kill(pid, signal.SIGTERM)
        assert daemon.wait(DEADLINE) == 0
        until(lambda: host.processes() == [], "no process is left")
        assert "starting another" not in host.said()
        host.start()


def test_a_resolver_whose_daemon_never_speaks_ends_by_itself():
    """The daemon that started it has died in between."""
    with tempfile.TemporaryDirectory(prefix="np") as place:

        def pids() -> list[int]:
            found = subprocess.run(("pgrep", "-f", f"netplug.resolver {place}"), text=True, stdout=subprocess.PIPE)
            return [int(pid) for pid in found.stdout.split()]

        try:
            subprocess.run((sys.executable, "-P", "-m", "netplug.resolver", place, "/etc/resolv.conf"), check=True)
            assert pids()
            until(lambda: not pids(), "it has ended")
        finally:
            end_processes(pids())


@contextlib.contextmanager
def renamed(path: Path) -> Iterator[None]:
    hidden = path.with_suffix(".hidden")
    path.rename(hidden)
    try:
        yield
    finally:
        hidden.rename(path)


def test_without_the_host_s_resolv_conf_names_go_on(host: Host):
    network(host, "demo")
    with renamed(host.resolv_conf):
        for name in ("web", "client"):
            run(host, name, "--network", "demo", *IDLE)
        assert found(host, "client", "web") == [host.container_address("web", "demo")]
        assert lookup(host, "client", "www.example.org").header.rcode == dnslib.RCODE.SERVFAIL
