"""A host for captures: `web` answers, `db` idles, both on `demo`; `alone` has no network, `own` the host's; `idle` does not run."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from netplug.cli.demo_ends import question
from netplug.kernel.namespaces import open_socket
from tests.capturing import Capture, capturing
from tests.hosts import Host, Lan
from tests.kernel.conftest import NO_SERVER
from tests.kernel.daily import IDLE, network, run, serve

PREFIX = "10.77.0"
GATEWAY, WEB, DB = f"{PREFIX}.1", f"{PREFIX}.2", f"{PREFIX}.3"

Capturing = Callable[..., AbstractContextManager[Capture]]


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
def capture(host: Host) -> Capturing:
    """`with capture("db", …) as seen:`"""
    return lambda *arguments: capturing(*arguments, environment=host.environment)


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
