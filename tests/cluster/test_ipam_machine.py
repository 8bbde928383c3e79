"""Nodes that connect, disconnect, die and come back as chance has it, over a real etcd: nothing is ever given twice, and nothing is lost.

After each step, once all is quiet: what the cluster has of living nodes is what they have records of; their pools, the ways of their frames
and the names they answer agree with that. In the end the dead come back, and every address has a living owner.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from netplug.errors import AddressesExhausted, AddressInUse, Conflict, Forbidden
from netplug.model import Endpoint
from tests.cluster.inprocess import PATIENCE, Node, imagined
from tests.etcd_members import Cluster

SUBNET = "10.0.0.0/28"
"""Small enough to be full now and then."""
NAMES = st.sampled_from([f"c{number}" for number in range(16)])
ADDRESSES = st.sampled_from(["", "", "", "10.0.0.2", "10.0.0.9"])
ANY = st.integers(0, 99)
REFUSALS = AddressesExhausted | AddressInUse | Conflict | Forbidden
_PREFIX = "/netplug/v1/"


class ClusterMachine(RuleBasedStateMachine):
    """`nodes` in all states; `_run` lets the loop live for one step."""

    etcd: Cluster
    count = 2

    def __init__(self) -> None:
        super().__init__()
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(imagined())
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._loop = asyncio.new_event_loop()
        self._run(self._begin(folder))

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(asyncio.wait_for(work, 60))

    async def _begin(self, folder: Path) -> None:
        self.store = await self.etcd.store()
        self.nodes = [Node(folder, number, self.etcd) for number in range(1, self.count + 1)]
        for node in self.nodes:
            await node.start()
        self.network = (await self.nodes[0].network(subnet=SUBNET)).id
        await self._agreed()

    def teardown(self) -> None:
        try:
            self._run(self._end())
        finally:
            self._loop.close()
            self._stack.close()
            self.etcd.ctl("del", "--prefix", "")

    async def _end(self) -> None:
        try:
            for node in self.nodes:
                if not node.alive:
                    await node.start()
            await self._agreed()
        finally:
            for node in self.nodes:
                await node.stop()
            await self.store.close()

    # What happens. Who it is must not depend on who was quicker before: a step that is impossible does nothing.

    def living(self, which: int) -> Node | None:
        living = [node for node in self.nodes if node.alive]
        return living[which % len(living)] if living else None

    def connected(self, which: int) -> tuple[Node, str] | None:
        """A node that lives, and a container of it."""
        found = sorted((node.name, one.container_name) for node in self.nodes if node.alive for one in node.controller.endpoints())
        if not found:
            return None
        name, container = found[which % len(found)]
        return next(node for node in self.nodes if node.name == name), container

    @rule(which=ANY, name=NAMES, address=ADDRESSES)
    def connect(self, which: int, name: str, address: str) -> None:
        if (node := self.living(which)) is not None:
            with contextlib.suppress(Conflict, AddressInUse, AddressesExhausted, Forbidden):
                self._run(node.container(name, address=address))

    @rule(names=st.lists(NAMES, min_size=2, max_size=6), address=ADDRESSES)
    def connect_all_at_once(self, names: list[str], address: str) -> None:
        """Everywhere, some of them by the same name."""

        async def work() -> list[Any]:
            living = [node for node in self.nodes if node.alive]
            wanted = (node.container(name, address=address) for name in names for node in living)
            return await asyncio.gather(*wanted, return_exceptions=True)

        results = self._run(work())
        assert [result for result in results if not isinstance(result, Endpoint | REFUSALS)] == []
        given = [result.address for result in results if isinstance(result, Endpoint)]
        assert len(set(given)) == len(given)

    @rule(which=ANY, end=st.booleans())
    def disconnect(self, which: int, end: bool) -> None:
        if (found := self.connected(which)) is not None:
            node, name = found
            self._run(node.remove(name) if end else node.disconnect(name))

    @rule(which=ANY, name=NAMES, at=st.integers(1, 24))
    def die_while_connecting(self, which: int, name: str, at: int) -> None:
        if (node := self.living(which)) is not None:
            self._run(node.dying(node.container(name), at))

    @rule(which=ANY, end=st.booleans(), at=st.integers(1, 12))
    def die_while_disconnecting(self, which: int, end: bool, at: int) -> None:
        if (found := self.connected(which)) is not None:
            node, name = found
            self._run(node.dying(node.remove(name) if end else node.disconnect(name), at))

    @rule(which=ANY)
    def die(self, which: int) -> None:
        if (node := self.living(which)) is not None:
            self._run(node.kill())

    @rule(which=ANY, rebooted=st.booleans())
    def come_back(self, which: int, rebooted: bool) -> None:
        """The daemon, or the whole host, whose containers are gone then."""
        if dead := [node for node in self.nodes if not node.alive]:
            node = dead[which % len(dead)]
            node.boots += rebooted
            self._run(node.start())
            assert not (rebooted and node.controller.endpoints())

    # What must hold

    @invariant()
    def all_agree(self) -> None:
        self._run(self._agreed())

    async def _agreed(self) -> None:
        until = self._loop.time() + PATIENCE
        while (trouble := await self._trouble()) is not None:
            assert self._loop.time() < until, trouble
            await asyncio.sleep(0.01)

    async def _trouble(self) -> str | None:
        """What does not fit yet."""
        kept: dict[str, Endpoint] = {}
        claims: dict[str, str] = {}
        for part in ("endpoints/", "endpoint-names/", "addresses/"):
            for item in (await self.store.range(_PREFIX + part))[1]:
                if part == "endpoints/":
                    endpoint = msgspec.json.decode(item.value, type=Endpoint)
                    kept[endpoint.id] = endpoint
                else:
                    claims[item.key.removeprefix(_PREFIX)] = item.value.decode()
        expected = {f"endpoint-names/{self.network}/{one.container_name}": one.id for one in kept.values()}
        expected |= {f"addresses/{self.network}/{_plain(one)}": one.id for one in kept.values()}
        if claims != expected:
            return f"keys of nobody's, or nobody's keys: {claims} are not {expected}"
        for node in filter(lambda node: node.alive, self.nodes):
            if (trouble := self._trouble_of(node, kept)) is not None:
                return f"{node.name}: {trouble}"
        return None

    def _trouble_of(self, node: Node, kept: dict[str, Endpoint]) -> str | None:
        core = node.core
        records = {one.id: (one.address, one.container_name) for one in node.controller.endpoints()}
        own = {one.id: (one.address, one.container_name) for one in kept.values() if one.node == node.name}
        if records != own:
            return f"records {records}, in the cluster {own}"
        if (self.network in core.joined) != bool(records):
            return "on a network without an endpoint there, or the other way round"
        if any(key.startswith(f"{_PREFIX}owed/") for key in node.store.data):
            return "owes something"
        seen = kept.values() if records else ()
        others = [one for one in seen if one.node != node.name]
        addresses = {_plain(one) for one in seen}
        if self.network not in core.allocators:
            return "does not know the network"
        if set(node.taken(self.network)) != addresses:
            return f"pool {node.taken(self.network)}, in the cluster {addresses}"
        frames = node.frames.entries.get(core.place(core.records.networks[self.network]), {})
        ways = {one.mac: one.vtep for one in others} | {_plain(one): one.mac for one in others}
        if frames != ways:
            return f"frames {frames}, should be {ways}"
        names = {names.address for names in node.resolver.endpoints.values()}
        answered = {_plain(one) for one in seen if node.nodes.lives(one.node) or one.node == node.name}
        return None if names == answered else f"names for {names}, should be for {answered}"


def _plain(endpoint: Endpoint) -> str:
    return endpoint.address.split("/")[0]


@pytest.mark.parametrize("count", [2, 3])
def test_whatever_nodes_do(etcd_member: Cluster, count: int):
    # A failure is shown as it was: who was quicker is not the same again, so there is nothing to make smaller.
    chosen = settings(
        max_examples=10, stateful_step_count=30, phases=[Phase.generate], suppress_health_check=list(HealthCheck), database=None
    )

    class Machine(ClusterMachine):
        etcd = etcd_member

    Machine.count = count
    run_state_machine_as_test(Machine, settings=chosen)
