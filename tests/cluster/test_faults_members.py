"""Three etcd members: one dies, the leader dies, all are started anew in turn, while nodes connect and disconnect."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.cluster.lab import LENIENT, PATIENCE, RUNNING, SUBNET, Lab, cluster, overlay, peers, remove, run, within
from tests.etcd_members import Member
from tests.hosts import ApiError


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with cluster(members=3, environment={"NETPLUG_NODE_TTL": str(LENIENT)}) as lab:
        network = overlay(lab.hosts[0])
        within(PATIENCE, network, lambda: lab.hosts[1].api("GET", "/networks/demo")["Id"])
        run(lab.hosts[0], "aa")
        run(lab.hosts[1], "bb")
        yield lab


class Restless:
    """Containers come and go on n1 until the end of the block. What failed is in `failures`."""

    def __init__(self, lab: Lab) -> None:
        self._host = lab.hosts[0]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.turns = 0
        self.longest = 0.0
        self.failures: list[str] = []

    def _work(self) -> None:
        while not self._ended.is_set():
            began = time.monotonic()
            try:
                run(self._host, f"r{self.turns}")
                remove(self._host, f"r{self.turns}")
            except ApiError as error:
                self.failures.append(str(error))
                remove(self._host, f"r{self.turns}")
            self.longest = max(self.longest, time.monotonic() - began)
            self.turns += 1

    def more(self) -> None:
        """A few more turns have been made."""
        wanted = self.turns + 3
        within(60, True, lambda: self.turns >= wanted)

    def __enter__(self) -> Restless:
        self._thread.start()
        self.more()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        print(f"{self.turns} containers, the longest took {self.longest:.2f} s")


def follower(lab: Lab) -> Member:
    leader = lab.etcd.leader()
    return next(member for member in lab.etcd.members if member is not leader)


def kill(lab: Lab, member: Member) -> None:
    member.kill()


def hang(lab: Lab, member: Member) -> None:
    """It keeps its connections and says nothing."""
    member.pause()


@pytest.mark.parametrize("how", [kill, hang])
@pytest.mark.parametrize("which", [follower, lambda lab: lab.etcd.leader()], ids=["a member", "the leader"])
def test_fault_a_member_dies(lab: Lab, which: Callable[[Lab], Member], how: Callable[[Lab, Member], None]):
    """Connects do not fail but for the election, which they wait for; the other node hears of every change."""
    one, two = lab.hosts
    network = one.api("GET", "/networks/demo")["Id"]
    member = which(lab)
    with Restless(lab) as restless:
        how(lab, member)
        restless.more()
        member.resume() if how is hang else member.start()
        restless.more()
    assert restless.failures == []
    run(one, "last")
    within(PATIENCE, {one.address}, lambda: set(peers(two, network).values()))
    within(PATIENCE, set(lab.claims()) - {f"{RUNNING}.3"}, lambda: set(peers(two, network)))
    remove(one, "last")
    assert len(lab.claims()) == 2


def test_fault_rolling_restart(lab: Lab):
    one, two = lab.hosts
    network = one.api("GET", "/networks/demo")["Id"]
    with Restless(lab) as restless, two.flood(f"{RUNNING}.2", sandbox="bb") as flood:
        for member in lab.etcd.members:
            member.stop()
            restless.more()
            member.start()
    assert restless.failures == []
    assert flood.lost == []
    within(PATIENCE, {f"{RUNNING}.2": one.address}, lambda: peers(two, network))
    assert lab.claims() == {f"{RUNNING}.2": "aa", f"{RUNNING}.3": "bb"}


def test_fault_most_members_away(lab: Lab):
    """One of three decides nothing."""
    one = lab.hosts[0]
    for member in lab.etcd.members[:2]:
        member.kill()
    try:
        began = time.monotonic()
        with pytest.raises(ApiError, match="etcd"):
            one.api("POST", "/networks/create", {"Name": "new", "Driver": "overlay", "IPAM": {**SUBNET}})
        assert time.monotonic() - began < 4
    finally:
        lab.etcd.heal()
    within(PATIENCE, True, lambda: bool(run(one, f"x{time.monotonic_ns()}")))
