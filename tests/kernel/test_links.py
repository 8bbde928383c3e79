"""Links (`--link`) where a network keeps its containers apart: the linked one's exposed ports, one way, as long as both are there."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator

import pytest

from netplug.kernel.namespaces import open_socket
from tests.differences import differences
from tests.hosts import Host, serving
from tests.kernel.conftest import both_backends
from tests.kernel.daily import IDLE, PATIENCE, address, ask, network, run, serve

ICC = "com.docker.network.bridge.enable_icc=false"


@pytest.fixture(params=["0", "1"], ids=["bridge-nf-call-iptables=0", "bridge-nf-call-iptables=1"])
def strict(request: pytest.FixtureRequest, hosts: Callable[..., Host]) -> Host:
    """A host whose default bridge keeps its containers apart, with and without bridged packets in the IP hooks."""
    host = hosts("--icc=false")
    for family in ("iptables", "ip6tables"):
        setting = f"net.bridge.bridge-nf-call-{family}"
        if host.run("sysctl", "-n", setting, check=False).returncode:
            pytest.skip("the kernel has no br_netfilter")
        host.run("sysctl", "-qw", f"{setting}={request.param}")
    return host


def remove(host: Host, *names: str) -> None:
    done = host.netplug("rm", "-f", *names)
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def listening(host: Host, container: str, *ports: int) -> Iterator[None]:
    """Servers in the container's network, on both IP versions."""
    inside = Inside(host.sandbox(container))
    with contextlib.ExitStack() as stack:
        for port in ports:
            stack.enter_context(serving(inside, port, "::"))
        yield


class Inside:
    """A container's network namespace, as `serving` wants it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def argv(self, *argv: str) -> list[str]:
        return ["nsenter", f"--net={self.path}", *argv]


def reached(host: Host, client: str, server: str, *ports: int, on: str = "bridge", kind: str = "tcp") -> list[int]:
    """Which of these answer, to the client's own address."""
    own, target = address(host, client, on), address(host, server, on)
    return [port for port in ports if ask(host.sandbox(client), target, port, kind) == own]


def reached6(host: Host, client: str, server: str, *ports: int, on: str) -> list[int]:
    target = host.container(server)["NetworkSettings"]["Networks"][on]["GlobalIPv6Address"]
    return [port for port in ports if connects6(host.sandbox(client), target, port)]


def connects6(namespace: str, target: str, port: int) -> bool:
    with open_socket(namespace, socket.AF_INET6, socket.SOCK_STREAM) as client:
        client.settimeout(PATIENCE)
        return client.connect_ex((target, port)) == 0


def await_server(host: Host, container: str) -> None:
    while not ask(host.sandbox(container), "127.0.0.1", 80):
        assert host.container(container)["State"]["Running"], host.netplug("logs", container)


@both_backends
def test_a_link_opens_what_is_exposed_and_nothing_else(strict: Host):
    host = strict
    run(host, "db", "--expose", "80", "--expose", "82/udp", "-p", "8083:83", *IDLE)
    run(host, "app", "--link", "db:database", *IDLE)
    run(host, "stranger", *IDLE)
    with listening(host, "db", 80, 81, 82, 83), listening(host, "app", 80):
        assert host.netplug("exec", "app", "getent", "ahostsv4", "database").stdout.split()[0] == address(host, "db", "bridge")
        assert reached(host, "app", "db", 80, 81, 82, 83) == [80, 83], "exposed, and published; the others are not"
        assert reached(host, "app", "db", 80, 82, kind="udp") == [82]
        assert reached(host, "stranger", "db", 80, 83) == [], "who has no link reaches nothing"
        assert reached(host, "db", "app", 80) == [], "one way only"


@both_backends
def test_a_link_follows_the_other_container(strict: Host):
    host = strict
    serve(host, "db", "--expose", "80")
    run(host, "app", "--link", "db", *IDLE)
    old = address(host, "db", "bridge")
    assert reached(host, "app", "db", 80) == [80]

    assert host.netplug("stop", "-t", "0", "db").returncode == 0
    serve(host, "squatter")
    assert address(host, "squatter", "bridge") == old
    assert reached(host, "app", "squatter", 80) == [], "the next owner of the address is not linked to"
    assert host.netplug("start", "db").returncode == 0
    await_server(host, "db")
    assert address(host, "db", "bridge") != old
    assert reached(host, "app", "db", 80) == [80]

    own = address(host, "app", "bridge")
    remove(host, "app")
    run(host, "heir", *IDLE)
    assert address(host, "heir", "bridge") == own
    assert reached(host, "heir", "db", 80) == [], "the link went with its container"


@both_backends
def test_nothing_stays_behind(strict: Host):
    host = strict
    run(host, "first", *IDLE)
    before = host.state()
    for order in (("db", "app"), ("app", "db")):
        serve(host, "db", "--expose", "80")
        run(host, "app", "--link", "db", *IDLE)
        assert reached(host, "app", "db", 80) == [80]
        remove(host, *order)
        assert list(differences(host.state(), before)) == []


@both_backends
def test_a_link_lives_through_the_daemons_death(strict: Host):
    """And when somebody has flushed the rules meanwhile, they come back."""
    host = strict
    serve(host, "db", "--expose", "80")
    run(host, "app", "--link", "db", *IDLE)
    run(host, "stranger", *IDLE)
    inside, target = host.sandbox("app"), address(host, "db", "bridge")
    with listening(host, "db", 81):
        rules = host.state()["host"]["nft"]
        host.kill9()
        assert [ask(inside, target, port) != "" for port in (80, 81)] == [True, False]
        host.start()
        assert list(differences(host.state()["host"]["nft"], rules)) == []
        host.kill9()
        host.run("nft", "flush", "ruleset")
        host.start()
        assert list(differences(host.state()["host"]["nft"], rules)) == []
        assert reached(host, "app", "db", 80, 81) == [80]
        assert reached(host, "stranger", "db", 80) == []
    assert host.netplug("stop", "-t", "0", "db").returncode == 0
    assert host.netplug("start", "db").returncode == 0
    await_server(host, "db")
    assert reached(host, "app", "db", 80) == [80]


@both_backends
def test_links_on_a_network_of_the_users(strict: Host):
    """In both IP versions, by `run` and by `network connect`."""
    host = strict
    network(host, "--opt", ICC, "--ipv6", "--subnet", "10.95.0.0/24", "--subnet", "fd95::/64", "apart")
    run(host, "db", "--network", "apart", "--expose", "80", *IDLE)
    run(host, "app", "--network", "apart", "--link", "db:database", *IDLE)
    run(host, "stranger", "--network", "apart", *IDLE)
    with listening(host, "db", 80, 81):
        for ask_for in (reached, reached6):
            assert ask_for(host, "app", "db", 80, 81, on="apart") == [80]
            assert ask_for(host, "stranger", "db", 80, 81, on="apart") == []
        assert host.netplug("network", "disconnect", "apart", "db").returncode == 0
        assert host.netplug("network", "connect", "--ip", "10.95.0.77", "apart", "db").returncode == 0
        assert reached(host, "app", "db", 80, 81, on="apart") == [80]
        assert host.netplug("network", "disconnect", "apart", "app").returncode == 0
        assert host.netplug("network", "connect", "apart", "app").returncode == 0
        assert reached(host, "app", "db", 80, on="apart") == [], "connected without the link"
        assert host.netplug("network", "disconnect", "apart", "app").returncode == 0
        assert host.netplug("network", "connect", "--link", "db:database", "apart", "app").returncode == 0
        for ask_for in (reached, reached6):
            assert ask_for(host, "app", "db", 80, 81, on="apart") == [80]


def test_where_containers_reach_one_another_a_link_is_no_rule(host: Host):
    network(host, "together")
    run(host, "db", "--network", "together", "--expose", "80", *IDLE)
    done = host.netplug("run", "-d", "--explain", "--name", "app", "--network", "together", "--link", "db", *IDLE)
    assert done.returncode == 0, done.stderr
    assert address(host, "db", "together") not in done.stdout
    with listening(host, "db", 80, 81):
        assert reached(host, "app", "db", 80, 81, on="together") == [80, 81]


def test_a_link_is_explained(strict: Host):
    host = strict
    run(host, "db", "--expose", "80", *IDLE)
    done = host.netplug("run", "-d", "--explain", "--name", "app", "--link", "db", *IDLE)
    assert done.returncode == 0, done.stderr
    pair = f"{address(host, 'app', 'bridge')} . {address(host, 'db', 'bridge')} . tcp . 80"
    assert pair in done.stdout


def test_a_link_on_the_default_bridge_is_to_a_container_on_it(host: Host):
    """As Docker has it: one that can be reached by no address is no link, and saying nothing would hide it."""
    network(host, "apart")
    run(host, "db", "--network", "apart", *IDLE)
    refused = host.netplug("run", "-d", "--name", "app", "--link", "db:database", *IDLE)
    assert refused.returncode == 125
    assert "Cannot link to /db, as it does not belong to the default network" in refused.stderr
    assert host.netplug("network", "connect", "bridge", "db").returncode == 0
    assert host.netplug("start", "app").returncode == 0
    assert host.netplug("exec", "app", "getent", "ahostsv4", "database").stdout.split()[0] == address(host, "db", "bridge")
