"""Hosts of one cluster, for tests: nodes `n1`, `n2`, … on a LAN, and an etcd member at an address outside of them."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.etcd_members import Cluster, Place, require_etcd
from tests.hosts import OUTSIDE_ADDRESS, Host, Lan

NO_SERVER = "nameserver 127.0.0.1\n"
"""A lookup of an unknown name is refused at once, not timed out."""
PORT = 2379
STORE = f"etcd://{OUTSIDE_ADDRESS}:{PORT}"


@dataclass(frozen=True)
class Neighbourhood:
    lan: Lan
    etcd: Cluster
    hosts: tuple[Host, ...]


@contextlib.contextmanager
def neighbourhood(*flags: str, count: int = 2) -> Iterator[Neighbourhood]:
    """So many hosts whose daemons run, and an etcd that nobody else uses.

    All but the first are told of it in Docker's old words, and have their firewall in iptables.
    """
    require_etcd()
    with contextlib.ExitStack() as stack:
        lan = stack.enter_context(Lan())
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="etcd-"))
        place = Place(OUTSIDE_ADDRESS, tuple(lan.outside.argv()), PORT, PORT + 1)
        etcd = stack.enter_context(Cluster(Path(directory), [place]))
        hosts = []
        for number in range(1, count + 1):
            host = stack.enter_context(Host(lan, *flags, resolv_conf=NO_SERVER))
            words = ours(host) if number == 1 else (*dockers(), "--firewall-backend", "iptables")
            host.flags = (*host.flags, *words, "--node", f"n{number}")
            host.start()
            hosts.append(host)
        yield Neighbourhood(lan, etcd, tuple(hosts))


def ours(host: Host) -> tuple[str, ...]:
    """The daemon's flags."""
    return ("--store", STORE, "--advertise", host.address)


def dockers() -> tuple[str, ...]:
    """The same flags of dockerd's, up to 20.10: an interface will do, and the port was for a discovery of its own."""
    return ("--cluster-store", STORE, "--cluster-advertise", "uplink:2376")
