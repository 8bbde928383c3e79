"""A node's daemon is killed at every fault point of every change of a network of the cluster, and started again.

Afterwards the kernel, the records and the cluster's store are as before the change or as after it, nothing between; the other node agrees;
and containers that run all the while lose no packet.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster.lab import PATIENCE, RUNNING, Lab, claims, connect, disconnect, overlay, peers, remove, run, survives, within
from tests.differences import differences
from tests.hosts import ApiError, Host
from tests.kernel.test_faults import in_one_order, rested, snapshot

EVERYWHERE = ("etcd.", "store.")
"""At each of these points it dies; of the others, which tests/kernel has its eyes on, at each tenth."""
MANY = 200

Change = Callable[[Host], Any]


def create(host: Host) -> None:
    overlay(host, "new", IPAM={"Config": [{"Subnet": "10.92.0.0/24"}]})


CHANGES: dict[str, tuple[Change, Change]] = {
    "join": (lambda host: connect(host, "idle", "wide"), lambda host: disconnect(host, "idle", "wide")),
    "leave": (lambda host: disconnect(host, "idle", "wide"), lambda host: connect(host, "idle", "wide")),
    "connect": (lambda host: connect(host, "idle"), lambda host: disconnect(host, "idle")),
    "disconnect": (lambda host: disconnect(host, "idle"), lambda host: connect(host, "idle")),
    "network-create": (create, lambda host: host.api("DELETE", "/networks/new")),
    "network-rm": (lambda host: host.api("DELETE", "/networks/new"), create),
    "rm": (lambda host: remove(host, "brief"), lambda host: run(host, "brief")),
}


@pytest.fixture
def faulty(pair: Lab) -> Lab:
    """n1's daemon has fault points. Beside `demo`, which both are on, there is `wide`, where n2 is; `idle` on n1 is on neither."""
    one, two = pair.hosts
    one.environment["NETPLUG_FAULTS"] = "1"
    one.restart()
    overlay(two, "wide", IPAM={"Config": [{"Subnet": "10.91.0.0/24"}]})
    connect(two, "bb", "wide")
    one.api("POST", "/networks/create", {"Name": "here", "IPAM": {"Config": [{"Subnet": "10.93.0.0/24"}]}})
    run(one, "idle", "here")
    within(PATIENCE, True, lambda: bool(one.api("GET", "/networks/wide")))
    yield pair
    del one.environment["NETPLUG_FAULTS"]
    remove(one, "idle")
    disconnect(two, "bb", "wide")
    one.api("DELETE", "/networks/here")
    one.restart()


def state(lab: Lab) -> dict[str, Any]:
    """Of n1 and of the cluster, and where n2 sends frames."""
    one, two = lab.hosts
    networks = {network["Name"]: network["Id"] for network in one.api("GET", "/networks") if network["Driver"] == "overlay"}
    keys = lab.keys()
    return {
        **wired(one),
        "cluster": sorted(key.split("/")[0] for key in keys if not key.startswith(("members/", "alive/", "nodes/"))),
        "claims": claims(keys),
        "seen": {name: peers(two, networks[name]) for name in ("demo", "wide")},
        "vnis": sorted(key for key in keys if key.startswith("vnis/")),
    }


def wired(host: Host) -> dict[str, Any]:
    """Without the MACs that the kernel makes up for ports of bridges."""
    found = snapshot(host, sysctls=False)
    for link in (link for sandbox in found["sandboxes"] for link in sandbox["links"] if "master" in link):
        del link["address"]
    anonymous = re.sub(r"gateway_[0-9a-f]{12}", "gateway", json.dumps(found))
    return in_one_order(json.loads(anonymous))  # type: ignore[no-any-return]


def points_of(host: Host, change: Change) -> list[str]:
    """That it passes, with its tail that nobody waits for."""
    host.api("POST", f"/netplug/faults?at={MANY * 10}")
    change(host)
    passed: list[str] = []
    while (now := host.api("GET", "/netplug/faults")["passed"]) != passed:
        passed = now
        time.sleep(0.05)
    host.api("POST", "/netplug/faults?at=0")
    return passed


def settled(lab: Lab, *expected: dict[str, Any]) -> dict[str, Any]:
    """The state, once it is one of those expected."""
    found: dict[str, Any] = {}

    def look() -> bool:
        nonlocal found
        found = state(lab)
        return found in expected

    try:
        within(PATIENCE, True, look)
    except AssertionError:
        lines = [line for one in expected for line in (*differences(found, one), "or")]
        pytest.fail("\n".join(lines))
    return found


@pytest.mark.parametrize("name", CHANGES)
def test_fault_daemon_dies_at_every_point(faulty: Lab, name: str):
    change, back = CHANGES[name]
    one = faulty.hosts[0]
    if name in ("leave", "disconnect", "network-rm", "rm"):
        back(one)
    before = state(faulty)
    points = points_of(one, change)
    after = state(faulty)
    back(one)
    settled(faulty, before)
    chosen = [number for number, point in enumerate(points, 1) if point.startswith(EVERYWHERE) or number % 10 == 0]
    deaths = 0
    with one.flood(f"{RUNNING}.3", sandbox="aa") as flood:
        for number in itertools.takewhile(lambda number: number < MANY, chosen):
            one.api("POST", f"/netplug/faults?at={number}")
            if survives(lambda: change(one)) and rested(one):
                back(one)
                continue
            deaths += 1
            one.kill9()
            one.start()
            now = settled(faulty, before, after)
            if name == "rm":  # what is left may be a container that does not run: it is no part of the state
                with contextlib.suppress(ApiError):
                    change(one)
                now = after
            if now == after:
                back(one)
        settled(faulty, before)
    print(f"{deaths} deaths of {len(chosen)} at {points}")
    assert deaths >= 4
    assert flood.lost == []
