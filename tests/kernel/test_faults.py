"""The daemon is killed at every fault point of every change, and started again.

Afterwards the kernel, the records, the mounts and the processes are as before the change or as after it, nothing between; the way back
leads to where it began; and two containers that run all the while never lose a packet. Nor does doctor find a difference, which compares
names, held ports and the store too.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.differences import differences
from tests.hosts import ApiError, Host, without_resolver_ports

IMAGE = "host"
MANY = 200
PATIENCE = 5.0
"""Seconds in which a new daemon must agree with what it finds."""


def do(host: Host, method: str, path: str, body: Any = None) -> bool:
    """One call; False if the daemon died of it."""
    try:
        host.api(method, path, body)
    except (ConnectionError, http.client.HTTPException):
        return False
    return True


def container(name: str, network: str) -> dict[str, Any]:
    return {
        "Image": IMAGE,
        "Cmd": ["busybox", "sleep", "1000"],
        "StopSignal": "SIGKILL",
        "HostConfig": {"NetworkMode": network, "PortBindings": {"80/tcp": [{"HostPort": "18080"}]} if name == "new" else {}},
        "ExposedPorts": {"80/tcp": {}},
    }


def run_container(host: Host, name: str, network: str) -> bool:
    return do(host, "POST", f"/containers/create?name={name}", container(name, network)) and do(host, "POST", f"/containers/{name}/start")


def connect(host: Host) -> bool:
    return do(host, "POST", "/networks/other/connect", {"Container": "aa", "EndpointConfig": {"Aliases": ["alias"]}})


def disconnect(host: Host) -> bool:
    return do(host, "POST", "/networks/other/disconnect", {"Container": "aa"})


def create_network(host: Host) -> bool:
    pools = {"Driver": "default", "Config": [{"Subnet": "10.77.0.0/24"}, {"Subnet": "fd77::/64"}]}
    return do(host, "POST", "/networks/create", {"Name": "new", "Driver": "bridge", "EnableIPv6": True, "IPAM": pools})


def remove_network(host: Host) -> bool:
    return do(host, "DELETE", "/networks/new")


def run(host: Host) -> bool:
    return run_container(host, "new", "other")


def remove_container(host: Host) -> bool:
    return do(host, "DELETE", "/containers/new?force=1")


Change = Callable[[Host], bool]
CHANGES: dict[str, tuple[Change, Change]] = {
    "connect": (connect, disconnect),
    "disconnect": (disconnect, connect),
    "network-create": (create_network, remove_network),
    "network-rm": (remove_network, create_network),
    "run": (run, remove_container),
    "rm": (remove_container, run),
}


def snapshot(host: Host, *, sysctls: bool = True) -> dict[str, Any]:
    """Kernel, records, mounts and processes, without what is random: ids and names made from them, and what they are sorted by."""
    state = host.state(sysctls=sysctls)
    state["sandboxes"] = list(state["sandboxes"].values())
    for link in state["host"]["links"]:
        if link["kind"] == "veth":
            link.pop("address")
    text = json.dumps({**state, "records": records(host), "processes": processes(host)})
    text = re.sub(r"veth[0-9a-f]{7}", "veth", text)
    text = re.sub(r"\b[0-9a-f]{64}\b|\b[0-9a-f]{12}\b", "id", text)
    return in_one_order(json.loads(without_resolver_ports(text)))  # type: ignore[no-any-return]


def in_one_order(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: in_one_order(one) for key, one in value.items()}
    return sorted((in_one_order(one) for one in value), key=json.dumps) if isinstance(value, list) else value


def records(host: Host) -> dict[str, Any]:
    networks = host.api("GET", "/networks")
    details = [host.api("GET", f"/networks/{network['Id']}") for network in networks]
    return {
        "networks": sorted(network["Name"] for network in networks),
        "endpoints": sorted(
            (network["Name"], entry["Name"], entry["IPv4Address"], entry["IPv6Address"])
            for network in details
            for entry in network["Containers"].values()
        ),
        "addresses": {network["Name"]: taken(host, network["Name"]) for network in networks},
        "containers": sorted(entry["Names"][0] for entry in host.api("GET", "/containers/json?all=1") if entry["State"] == "running"),
    }


def taken(host: Host, network: str) -> list[str]:
    pools = host.api("GET", f"/netplug/ipam/{network}")["Pools"] or []
    return [entry["Address"] for pool in pools for entry in pool["Taken"]]


def processes(host: Host) -> list[str]:
    """Their names; without the forwarder, which comes with the first port on [::1], and goes when it has nothing to do."""
    names = []
    for pid in host.processes():
        if b"netplug.forwarder" in command_line(pid):
            continue
        with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/comm") as comm:
            names.append(comm.read().strip())
    return sorted(names)


def command_line(pid: int) -> bytes:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


@pytest.mark.parametrize("name", CHANGES)
def test_the_daemon_dies_at_every_fault_point(hosts: Callable[..., Host], name: str):
    change, back = CHANGES[name]
    host = hosts(environment={"NETPLUG_FAULTS": "1"})
    for network, subnets in (("demo", ["10.75.0.0/24"]), ("other", ["10.76.0.0/24", "fd76::/64"])):
        pools = [{"Subnet": subnet} for subnet in subnets]
        host.api("POST", "/networks/create", {"Name": network, "EnableIPv6": len(subnets) > 1, "IPAM": {"Config": pools}})
    assert run_container(host, "aa", "demo")
    assert run_container(host, "bb", "demo")
    if name in {"disconnect", "network-rm", "rm"}:
        assert back(host)
    before = snapshot(host)
    assert change(host)
    after = snapshot(host)
    assert before != after
    assert back(host)
    assert list(differences(snapshot(host), before)) == []
    deaths = []
    with host.flood(host.container_address("bb", "demo"), sandbox="aa") as flood:
        for number in itertools.count(1):
            host.api("POST", f"/netplug/faults?at={number}")
            if change(host) and rested(host):
                break
            deaths.append(number)
            host.kill9()
            host.start()
            now = settled(host, before, after)
            if now != before and now != after:
                lines = [*differences(now, before), "or", *differences(now, after)]
                pytest.fail(f"killed at point {number} of {name}:\n" + "\n".join(lines))
            assert host.api("GET", "/netplug/doctor") == [], f"killed at point {number} of {name}"
            if name in {"run", "rm"}:
                # What is left may be a container that does not run: it is no part of the snapshot.
                with contextlib.suppress(ApiError):
                    remove_container(host)
                if name == "rm":
                    assert back(host)
            elif now == after:
                assert back(host)
            assert list(differences(settled(host, before), before)) == [], f"the way back after point {number} of {name}"
            assert number < MANY
    assert len(deaths) >= 4, "a change with hardly any fault point proves nothing"
    assert flood.lost == []
    assert flood.sent > 10


def rested(host: Host, *, disarm: bool = True) -> bool:
    """Disarm the daemon once it passes no more points: a change has a tail that nobody waits for. False if it died of that."""
    passed = -1
    try:
        while (now := len(host.api("GET", "/netplug/faults")["passed"])) != passed:
            passed = now
            time.sleep(0.03)
        if disarm:
            host.api("POST", "/netplug/faults?at=0")
    except (ConnectionError, http.client.HTTPException):
        return False
    return True


def settled(host: Host, *expected: dict[str, Any]) -> dict[str, Any]:
    """The snapshot, once it is one of those expected: a container that was dying is seen to its end by the new daemon."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            found = snapshot(host)
        except RuntimeError:  # a namespace went while it was being looked at
            found = {}
        if found in expected or time.monotonic() > deadline:
            return found
