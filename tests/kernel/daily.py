"""What people do with containers every day, as a few functions for the tests: run one, serve, ask, make a network."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

from netplug.cli.demo_ends import program
from netplug.kernel.namespaces import open_socket
from tests.hosts import Host

ROOT = Path(__file__).parents[2]
SERVER = ("host", *program("serve", "::"))
IDLE = ("host", "busybox", "sleep", "1000")
PATIENCE = 0.4
"""Seconds after which a packet counts as dropped; within one machine an answer takes microseconds."""


def ask(namespace: str, address: str, port: int, kind: str = "tcp", source: str = "", patience: float = PATIENCE) -> str:
    """What the server there says: the caller's address as it sees it; `""` when nothing comes back."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with open_socket(namespace, family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as client:
        client.settimeout(patience)
        try:
            if source:
                client.bind((source, 0))
            client.connect((address, port))
            if kind == "udp":
                client.send(b"hello")
            return client.recv(100).decode().splitlines()[0]
        except OSError:
            return ""


def run(host: Host, name: str, *arguments: str) -> None:
    done = host.netplug("run", "-d", "--name", name, *arguments)
    assert done.returncode == 0, done.stderr


def serve(host: Host, name: str, *options: str, port: int = 80) -> None:
    """A container with the server; returns when it answers on its own loopback."""
    # The image `host` has a /tmp of its own: where this checkout lies there, the server would be missing.
    run(host, name, *options, "-v", f"{ROOT}:{ROOT}:ro", *SERVER, str(port))
    while not ask(host.sandbox(name), "127.0.0.1", port):
        assert host.container(name)["State"]["Running"], host.netplug("logs", name)
        time.sleep(0.01)


def network(host: Host, *arguments: str) -> None:
    done = host.netplug("network", "create", *arguments)
    assert done.returncode == 0, done.stderr


def address(host: Host, name: str, network_name: str = "demo") -> str:
    return host.container_address(name, network_name)


def address6(host: Host, name: str, network_name: str = "demo") -> str:
    return host.container_address6(name, network_name)


def inspected(host: Host, name: str) -> dict[str, Any]:
    return host.container(name)["NetworkSettings"]
