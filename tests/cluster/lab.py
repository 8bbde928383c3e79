"""A cluster for tests: hosts `n1`, `n2`, … with real daemons on one LAN, and etcd members at the address outside of them.

Eyes for it that are not ours: etcdctl for what the cluster keeps, `bridge` and `ip` for where a node's frames go, a DNS question for names.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from netplug.cli.demo_ends import question
from netplug.cli.demo_hosts import end_processes, mounts_below, owned_processes
from netplug.kernel import namespaces
from tests.etcd_members import Cluster, Place, require_etcd
from tests.hosts import OUTSIDE_ADDRESS, ApiError, Host, Lan, command

NO_SERVER = "nameserver 127.0.0.1\n"
PORT = 2379
TTL = 3
"""Seconds that a node may be silent, here."""
LENIENT = 60
"""The same, where daemons are started again: on a busy machine that takes its time."""
PATIENCE = 20.0
"""Seconds that are waited for what takes less than one on a machine that has nothing else to do."""
RUNNING = "10.90.0"
"""The network `demo`."""
SUBNET = {"Config": [{"Subnet": f"{RUNNING}.0/24"}]}


class Lab:
    """`hosts[0]` is `n1`."""

    def __init__(self, lan: Lan, etcd: Cluster) -> None:
        self.lan, self.etcd = lan, etcd
        self.hosts: list[Host] = []

    def membership(self, host: Host, name: str) -> tuple[str, ...]:
        """Flags of a daemon."""
        return ("--store", f"etcd://{','.join(self.etcd.addresses)}", "--advertise", host.address, "--node", name)

    def cut(self, host: Host) -> None:
        """Take the cable out."""
        self.lan.switch.ip("link", "set", port(host), "down")

    def mend(self, host: Host) -> None:
        self.lan.switch.ip("link", "set", port(host), "up")

    def keys(self, *parts: str) -> dict[str, Any]:
        """What the cluster keeps below `/netplug/v1/<part>`, decoded where it is JSON. All where no part is given."""
        found = {}
        for part in parts or ("",):
            told = json.loads(self.etcd.ctl("get", "--prefix", f"/netplug/v1/{part}", "--write-out", "json"))
            for pair in told.get("kvs", ()):
                key, value = (_decoded(pair.get(field, "")) for field in ("key", "value"))
                with contextlib.suppress(ValueError):
                    value = json.loads(value)
                found[key.removeprefix("/netplug/v1/")] = value
        return found

    def claims(self) -> dict[str, str]:
        return claims(self.keys("endpoints/", "endpoint-names/", "addresses/"))


def claims(kept: dict[str, Any]) -> dict[str, str]:
    """By address on any network: the name of the container that has it. Every key of an endpoint is looked at, each must fit."""
    keys = {key: value for key, value in kept.items() if key.startswith(("endpoints/", "endpoint-names/", "addresses/"))}
    endpoints = [value for key, value in keys.items() if key.startswith("endpoints/")]
    expected = {f"endpoints/{one['network']}/{one['id']}" for one in endpoints}
    expected |= {f"endpoint-names/{one['network']}/{one['container_name']}" for one in endpoints}
    expected |= {f"addresses/{one['network']}/{one['address'].split('/')[0]}" for one in endpoints}
    assert set(keys) == expected, "a name or an address belongs to nobody"
    return {one["address"].split("/")[0]: one["container_name"] for one in endpoints}


@contextlib.contextmanager
def cluster(*flags: str, hosts: int = 2, members: int = 1, environment: dict[str, str] | None = None) -> Iterator[Lab]:
    """All of it, running."""
    require_etcd()
    with contextlib.ExitStack() as stack:
        lan = stack.enter_context(Lan())
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="etcd-"))
        enter = tuple(lan.outside.argv())
        places = [Place(OUTSIDE_ADDRESS, enter, PORT + 2 * number, PORT + 2 * number + 1) for number in range(members)]
        lab = Lab(lan, stack.enter_context(Cluster(Path(directory), places)))
        for number in range(1, hosts + 1):
            environment = {"NETPLUG_NODE_TTL": str(TTL), **(environment or {})}
            host = stack.enter_context(Host(lan, *flags, resolv_conf=NO_SERVER, environment=environment))
            host.flags = (*host.flags, *lab.membership(host, f"n{number}"))
            lab.hosts.append(host)
            host.start()
        yield lab
        for host in lab.hosts:  # pytest shows it with a test that failed
            print(f"daemon of {host.namespace.name}:\n{host.said()}")


def reboot(host: Host) -> None:
    """As far as a daemon can tell: its run directory is empty, processes, namespaces and links are gone."""
    host.kill9()
    end_processes(owned_processes(host.namespace.path, host.directory))
    for point in reversed(mounts_below(host.run_directory)):
        command("umount", "--lazy", point)
    shutil.rmtree(host.run_directory)
    for link in json.loads(host.run("ip", "-j", "link").stdout):
        if link["ifname"] not in ("lo", "uplink"):
            host.run("ip", "link", "del", link["ifname"], check=False)
    host.run("nft", "flush", "ruleset")


def port(host: Host) -> str:
    """Its end on the switch."""
    return f"h{host.address.rpartition('.')[2]}"


def overlay(host: Host, name: str = "demo", **options: Any) -> str:
    """Make a network of the cluster; its id."""
    return str(host.api("POST", "/networks/create", {"Name": name, "Driver": "overlay", "IPAM": SUBNET, **options})["Id"])


def run(host: Host, name: str, network: str = "demo", **endpoint: Any) -> str:
    """Start a container that idles; its address."""
    body = {
        "Image": "host",
        "Cmd": ["busybox", "sleep", "1000"],
        "StopSignal": "SIGKILL",
        "HostConfig": {"NetworkMode": network},
        "NetworkingConfig": {"EndpointsConfig": {network: endpoint}} if endpoint else {},
    }
    host.api("POST", f"/containers/create?name={name}", body)
    host.api("POST", f"/containers/{name}/start")
    return host.container_address(name, network)


def remove(host: Host, name: str) -> None:
    host.api("DELETE", f"/containers/{name}?force=1")


def connect(host: Host, name: str, network: str = "demo", **endpoint: Any) -> str:
    host.api("POST", f"/networks/{network}/connect", {"Container": name, "EndpointConfig": endpoint})
    return host.container_address(name, network)


def disconnect(host: Host, name: str, network: str = "demo") -> None:
    host.api("POST", f"/networks/{network}/disconnect", {"Container": name})


def populate(lab: Lab) -> None:
    one, two = lab.hosts[:2]
    within(PATIENCE, overlay(one), lambda: two.api("GET", "/networks/demo")["Id"])
    assert (run(one, "aa"), run(two, "bb")) == (f"{RUNNING}.2", f"{RUNNING}.3")
    settled(lab)


def recover(lab: Lab) -> None:
    """As `populate` left it, whatever has been done to it."""
    lab.etcd.heal()
    wanted = [(lab.hosts[0], "aa", f"{RUNNING}.2"), (lab.hosts[1], "bb", f"{RUNNING}.3")]
    for host, name, address in wanted:
        lab.mend(host)
        if host.daemon is None:
            host.start()
        within(PATIENCE, True, lambda host=host: bool(host.api("GET", "/networks/demo")))
        for container in host.api("GET", "/containers/json?all=1"):
            attached = {network: one["IPAddress"] for network, one in container["NetworkSettings"]["Networks"].items()}
            if (container["Names"], container["State"], attached) != ([f"/{name}"], "running", {"demo": address}):
                remove(host, container["Id"])
    for host, name, address in wanted:
        for network in host.api("GET", "/networks"):
            if network["Name"] not in ("bridge", "host", "none", "netplug_gwbridge", "demo"):
                within(PATIENCE, None, lambda host=host, network=network: deleted(host, network["Id"]))
        if host.api("GET", "/containers/json") == []:
            static = {"IPAMConfig": {"IPv4Address": address}}
            within(PATIENCE, address, lambda host=host, name=name, static=static: run(host, name, **static))
    within(PATIENCE, {address: name for _, name, address in wanted}, lab.claims)
    settled(lab)


def deleted(host: Host, network: str) -> None:
    with contextlib.suppress(ApiError):
        host.api("DELETE", f"/networks/{network}")
    assert network not in {one["Id"] for one in host.api("GET", "/networks")}


def network_of(lab: Lab) -> str:
    """The id of `demo`."""
    return str(lab.hosts[0].api("GET", "/networks/demo")["Id"])


def settled(lab: Lab, seconds: float = PATIENCE) -> float:
    """Until every node sends frames and names to where the cluster says that containers are; how long it took."""
    network = network_of(lab)
    began = time.monotonic()
    endpoints = [one for key, one in lab.keys("endpoints/").items() if key.split("/")[1] == network]
    where = {one["address"].split("/")[0]: (one["vtep"], one["container_name"]) for one in endpoints}
    for host in lab.hosts:
        own = [name for vtep, name in where.values() if vtep == host.address]
        others = {address: vtep for address, (vtep, _) in where.items() if vtep != host.address}
        if own:
            within(seconds, others, lambda host=host, others=others: peers(host, network))
            for address, (_, name) in where.items():
                within(seconds, address, lambda host=host, own=own, name=name: answer(host, own[0], name))
        else:
            assert not Path(place(host, network)).exists()
    return time.monotonic() - began


def survives(change: Callable[[], Any]) -> bool:
    """False if the daemon died of it."""
    try:
        change()
    except (ConnectionError, http.client.HTTPException):
        return False
    return True


def refusal(change: Callable[[], Any]) -> tuple[float, ApiError]:
    """How long it took to fail, and how it did."""
    began = time.monotonic()
    try:
        change()
    except ApiError as error:
        return time.monotonic() - began, error
    raise AssertionError("it did not fail")


def place(host: Host, network: str) -> str:
    """The namespace that the network of that id has on that host."""
    return str(host.run_directory / "netns" / f"1-{network[:10]}")


def peers(host: Host, network: str) -> dict[str, str]:
    """By address of a container elsewhere, the node that its frames go to. Both tables must agree."""
    enter, link = ("nsenter", f"--net={place(host, network)}"), f"vx-{network[:12]}"
    forwarding = json.loads(command(*enter, "bridge", "-j", "fdb", "show", "dev", link).stdout or "[]")
    nodes = {one["mac"]: one["dst"] for one in forwarding if "dst" in one}
    neighbours = json.loads(command(*enter, "ip", "-j", "neigh", "show", "dev", link).stdout or "[]")
    by_address = {one["dst"]: one["lladdr"] for one in neighbours if "PERMANENT" in one["state"]}
    assert set(by_address.values()) == set(nodes), "an entry leads nowhere, or nobody asks for it"
    return {address: nodes[mac] for address, mac in by_address.items()}


def answer(host: Host, container: str, name: str) -> str:
    """The address that a container is told for a name; `""`: there is none."""
    with namespaces.open_socket(host.sandbox(container), socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(2)
        client.connect(("127.0.0.11", 53))
        client.send(question(name, 1))
        told = client.recv(512)
    return socket.inet_ntoa(told[-4:]) if told[3] & 0xF == 0 and told[6:8] != b"\0\0" else ""


def pings(host: Host, container: str, target: str, *options: str) -> bool:
    return host.inside(container, "ping", "-n", "-c1", "-W1", *options, target, check=False).returncode == 0


def within(seconds: float, expected: Any, look: Callable[[], Any]) -> float:
    """Seconds until `look` gives what is expected."""
    began = time.monotonic()
    while True:
        try:
            found = look()
        except (AssertionError, RuntimeError, OSError, ApiError) as error:  # what is looked at is just changing
            found = error
        took = time.monotonic() - began
        if found == expected:
            return took
        assert took < seconds, f"after {seconds} seconds there is {found!r}, not {expected!r}"
        time.sleep(0.02)


def _decoded(text: str) -> str:
    return base64.b64decode(text).decode(errors="replace")
