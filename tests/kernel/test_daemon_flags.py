"""Flags of the daemon that change what packets may do: each with packets, and with the case that shows the difference."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from netplug.kernel.namespaces import open_socket
from tests.hosts import Host, Lan
from tests.kernel.daily import IDLE, ask, network, run, serve

BACKENDS = ("nftables", "iptables")
SUBNET = "10.80.0.0/24"
WEB = "10.80.0.9"


def routed_from_outside(host: Host, lan: Lan) -> None:
    """A neighbour on the LAN knows the way to the containers' addresses; whether it may go it is the host's to say."""
    lan.outside.ip("route", "add", SUBNET, "via", host.address)


def server(host: Host, *options: str) -> None:
    """A container that serves port 80."""
    network(host, "--subnet", SUBNET, "demo")
    serve(host, "web", "--network", "demo", "--ip", WEB, *options)


@contextlib.contextmanager
def serving_more(path: str, port: int) -> Iterator[None]:
    """Another port served in the namespace at `path`."""
    with open_socket(path, socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("0.0.0.0", port))
        listener.listen()
        thread = threading.Thread(target=_greet, args=(listener,))
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _greet(listener: socket.socket) -> None:
    """Until the listener is shut down."""
    with contextlib.suppress(OSError):
        while True:
            client, peer = listener.accept()
            with client:
                client.sendall(f"{peer[0]}\n".encode())


@pytest.mark.parametrize("backend", BACKENDS)
def test_published_ports_by_the_containers_own_addresses(hosts: Callable[..., Host], lan: Lan, backend: str):
    host = hosts("--firewall-backend", backend)
    routed_from_outside(host, lan)
    server(host, "-p", "8080:80", "-p", "127.0.0.1:8081:81", "-p", "9000-9001:90-91")
    inside = host.sandbox("web")
    outside = lan.outside.path
    assert ask(outside, host.address, 8080)
    assert ask(outside, WEB, 80) == "", "direct access is closed"

    host.restart("--allow-direct-routing")
    assert ask(outside, WEB, 80), "also for a container that was there before"
    assert ask(outside, host.address, 8080), "and the host's port goes on"
    with serving_more(inside, 81), serving_more(inside, 82), serving_more(inside, 91):
        assert ask(outside, WEB, 91)
        assert ask(outside, WEB, 81) == "", "published on the host's loopback only"
        assert ask(outside, WEB, 82) == "", "not published"
    assert host.netplug("network", "disconnect", "demo", "web").returncode == 0
    assert host.netplug("network", "connect", "--ip", WEB, "demo", "web").returncode == 0
    assert ask(outside, WEB, 80)

    host.restart()
    assert (ask(outside, WEB, 80), bool(ask(outside, host.address, 8080))) == ("", True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_packets_with_a_mark_are_let_in(hosts: Callable[..., Host], lan: Lan, backend: str):
    host = hosts("--firewall-backend", backend, "--bridge-accept-fwmark", "0x100/0x300")
    routed_from_outside(host, lan)
    server(host)
    outside = lan.outside.path
    assert ask(outside, WEB, 80) == "", "without a mark"
    mark = "table ip admin { chain marking { type filter hook prerouting priority mangle; iifname uplink meta mark set %s; }; }"
    for value, let_in in (("0x200", False), ("0x300", False), ("0x100", True), ("0x1c00", False), ("0x1d00", True)):
        host.run("nft", mark % value)
        assert bool(ask(outside, WEB, 80)) == let_in, value
        host.run("nft", "delete table ip admin")


def test_without_ip_forward_forwarding_is_the_admin_s(hosts: Callable[..., Host]):
    host = hosts("--ip-forward=false")
    network(host, "--ipv6", "six")
    run(host, "web", "--network", "six", *IDLE)
    keys = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")
    assert [host.run("sysctl", "-n", key).stdout for key in keys] == ["0\n", "0\n"]
    host.restart()
    assert [host.run("sysctl", "-n", key).stdout for key in keys] == ["0\n", "0\n"]
    assert host.netplug("rm", "-f", "web").returncode == 0
    host.stop()
    host.start("--ip-forward=true")
    network(host, "--ipv6", "other")
    assert [host.run("sysctl", "-n", key).stdout for key in keys] == ["1\n", "1\n"]


@pytest.mark.parametrize("flag", ["--iptables=false", "--firewall-backend=none"])
def test_without_a_firewall_of_ours(hosts: Callable[..., Host], lan: Lan, flag: str):
    """Names go on, and what an administrator lets through goes through; no rule of ours is on the host."""
    host = hosts(flag)
    routed_from_outside(host, lan)
    server(host)
    run(host, "client", "--network", "demo", *IDLE)
    assert "netplug" not in host.run("nft", "list", "ruleset").stdout
    assert ask(lan.outside.path, WEB, 80), "nothing of ours is in the way"
    assert host.netplug("exec", "client", "ping", "-c1", "-W2", "web").returncode == 0


@pytest.mark.parametrize(("before", "after"), [("nftables", "iptables"), ("iptables", "nftables"), ("iptables", "none")])
def test_another_backend_takes_the_old_one_s_rules_away(hosts: Callable[..., Host], lan: Lan, before: str, after: str):
    host = hosts()
    host.restart("--firewall-backend", before)
    server(host, "-p", "8080:80")
    run(host, "client", "--network", "demo", *IDLE)
    assert ask(lan.outside.path, host.address, 8080)
    host.restart("--firewall-backend", after)
    assert bool(ask(lan.outside.path, host.address, 8080)) == (after != "none")
    assert host.netplug("exec", "client", "ping", "-c1", "-W2", "web").returncode == 0
    ours = {"nftables": "table inet netplug", "iptables": "NETPLUG-"}
    rules = host.run("nft", "list", "ruleset").stdout
    assert {name: mark in rules for name, mark in ours.items()} == {name: name == after for name in ours}
