"""Daemons in a cluster that lets in only whom it knows, over IPv6 too: certificates, user and password, a prefix of our own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.lab import NO_SERVER, PATIENCE, PORT, answer, overlay, peers, pings, run, within
from tests.etcd_members import Certificates, Cluster, Place, require_etcd
from tests.hosts import OUTSIDE_ADDRESS, OUTSIDE_ADDRESS6, Host, Lan

PASSWORD = "correct horse"


@contextlib.contextmanager
def secured(directory: Path, address: str, *, tls: bool = False) -> Iterator[tuple[Lan, Cluster]]:
    """A member outside of all hosts, at that address of the LAN."""
    require_etcd()
    with Lan() as lan:
        certificates = Certificates.make(directory / "certificates", [OUTSIDE_ADDRESS, OUTSIDE_ADDRESS6]) if tls else None
        place = Place(address, tuple(lan.outside.argv()), PORT, PORT + 1)
        with Cluster(directory, [place], tls=certificates) as etcd:
            yield lan, etcd


def shown(hosts: list[Host]) -> None:
    for host in hosts:  # pytest shows it with a test that failed
        print(f"daemon of {host.namespace.name}:\n{host.said()}")


def test_two_nodes_with_certificates_over_ipv6(tmp_path: Path):
    with secured(tmp_path, OUTSIDE_ADDRESS6, tls=True) as (lan, etcd), contextlib.ExitStack() as stack:
        assert etcd.tls is not None
        client = etcd.tls.client
        files = ("--store-ca", str(client.ca), "--store-cert", str(client.cert), "--store-key", str(client.key))
        hosts = [stack.enter_context(Host(lan, resolv_conf=NO_SERVER)) for _ in range(2)]
        for number, host in enumerate(hosts, 1):
            host.start("--store", f"etcd://{etcd.addresses[0]}", *files, "--advertise", host.address6, "--node", f"n{number}")
        one, two = hosts
        overlay(one)
        within(PATIENCE, True, lambda: bool(demo(two)))
        here, there = run(one, "aa"), run(two, "bb")
        within(PATIENCE, {there: two.address6}, lambda: peers(one, demo(one)))
        within(PATIENCE, there, lambda: answer(one, "aa", "bb"))
        within(PATIENCE, here, lambda: answer(two, "bb", "aa"))
        assert pings(one, "aa", there)
        # What fits into 1500 bytes with headers that are 20 bytes longer than over IPv4.
        assert pings(two, "bb", here, "-s", str(1430 - 28), "-M", "do")
        assert not pings(two, "bb", here, "-s", str(1431 - 28), "-M", "do")
        listed = one.netplug("node", "ls").stdout
        assert all(address in listed for address in (one.address6, two.address6))
        shown(hosts)


def demo(host: Host) -> str:
    return str(host.api("GET", "/networks/demo")["Id"])


def test_who_has_no_certificate_is_not_let_in(tmp_path: Path):
    with secured(tmp_path, OUTSIDE_ADDRESS, tls=True) as (lan, etcd), Host(lan, resolv_conf=NO_SERVER) as host:
        assert etcd.tls is not None
        host.start("--store", f"etcd://{etcd.addresses[0]}", "--store-ca", str(etcd.tls.client.ca), "--advertise", host.address)
        done = host.netplug("network", "create", "-d", "overlay", "demo")
        assert done.returncode == 1
        assert f"the etcd cluster does not answer ({etcd.addresses[0]}:" in done.stderr
        assert host.netplug("network", "create", "local").returncode == 0  # what is the host's own goes on
        assert etcd.ctl("get", "--prefix", "", "--keys-only") == ""


@pytest.mark.parametrize("password", [PASSWORD, "wrong"])
def test_a_user_and_a_place_of_our_own(tmp_path: Path, password: str):
    """Nothing is written outside of the prefix, where the user may not write either."""
    with secured(tmp_path, OUTSIDE_ADDRESS) as (lan, etcd), Host(lan, resolv_conf=NO_SERVER) as host:
        etcd.require_passwords("netplug", PASSWORD, "/team/")
        user = ("--store-user", f"netplug:{password}")
        host.start("--store", f"etcd://{etcd.addresses[0]}/team", *user, "--advertise", host.address, "--node", "n1")
        done = host.netplug("network", "create", "-d", "overlay", "demo")
        keys = etcd.ctl("get", "--prefix", "", "--keys-only").split()
        if password == PASSWORD:
            assert done.returncode == 0, done.stderr
            assert "/team/netplug/v1/network-names/demo" in keys
            assert all(key.startswith("/team/") for key in keys)
            assert run(host, "aa")
        else:
            assert done.returncode == 1
            assert "refuses user netplug: wrong name or password" in done.stderr
            assert keys == []
