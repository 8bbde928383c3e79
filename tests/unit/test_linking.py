"""Rules of links: there while both ends are on the network, whoever comes first, goes first, or comes while the other goes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from netplug.controller import EndpointRequest
from netplug.model import PortBinding
from netplug.plan import AllowPeer, Plan, Remove
from netplug.store import Compare, Write
from tests.unit.doubles import Applied, MemoryExecutor, MemoryStore
from tests.unit.test_controller import Lab, lab

__all__ = ["lab"]

APART = {"com.docker.network.bridge.enable_icc": "false"}


class Rules(MemoryExecutor):
    """Keeps the links' rules that are in force."""

    def __init__(self) -> None:
        super().__init__()
        self.links: set[tuple[str, str, str, int]] = set()

    async def apply(self, plan: Plan) -> Applied:
        applied = await super().apply(plan)
        self._follow(plan)
        return applied

    async def remove(self, plan: Plan) -> list:
        self._follow(plan)
        return await super().remove(plan)

    def _follow(self, plan: Plan) -> None:
        for step in plan:
            op = step.op if isinstance(step, Remove) else step
            if isinstance(op, AllowPeer):
                (self.links.discard if isinstance(step, Remove) else self.links.add)((op.client, op.server, op.protocol, op.port))


@pytest.fixture
def rules(lab: Lab) -> Rules:
    lab.core.executor = Rules()
    return lab.core.executor


async def test_whoever_comes_first(lab: Lab, rules: Rules):
    await lab.network(options=APART)
    db, app = await lab.sandbox("db", exposed=("80/tcp", "53/udp", "80")), await lab.sandbox("app")
    link = EndpointRequest(links=(db.id,))
    both = {("10.50.0.2", "10.50.0.3", "tcp", 80), ("10.50.0.2", "10.50.0.3", "udp", 53)}

    await lab.controller.connect("demo", app.id, link)
    assert rules.links == set(), "nobody there yet"
    await lab.controller.connect("demo", db.id, EndpointRequest())
    assert rules.links == both

    await lab.controller.disconnect("demo", db.id)
    assert rules.links == set()
    await lab.controller.connect("demo", db.id, EndpointRequest(address="10.50.0.9"))
    assert {server for _, server, _, _ in rules.links} == {"10.50.0.9"}
    await lab.controller.remove_sandbox(app.id)
    assert rules.links == set()
    await lab.controller.connect("demo", (await lab.sandbox("new")).id, link)
    assert len(rules.links) == 2
    await lab.controller.remove_sandbox(db.id)
    assert rules.links == set()


async def test_published_ports_count_as_exposed(lab: Lab, rules: Rules):
    await lab.network(options=APART)
    ports = (PortBinding(protocol="tcp", port=8080, host_ip="127.0.0.1", count=3),)
    db, app = await lab.sandbox("db", ports=ports, exposed=("8081/tcp",)), await lab.sandbox("app")
    await lab.controller.connect("demo", db.id, EndpointRequest())
    await lab.controller.connect("demo", app.id, EndpointRequest(links=(db.id,)))
    assert sorted(port for *_, port in rules.links) == [8080, 8081, 8082]


async def test_only_on_the_network_of_the_link_and_only_where_containers_are_apart(lab: Lab, rules: Rules):
    await lab.network("open", pools=())
    await lab.network("apart", options=APART)
    db, app = await lab.sandbox("db", exposed=("80/tcp",)), await lab.sandbox("app")
    for name in ("open", "apart"):
        await lab.controller.connect(name, db.id, EndpointRequest())
    await lab.controller.connect("open", app.id, EndpointRequest(links=(db.id,)))
    assert rules.links == set()
    await lab.controller.connect("apart", app.id, EndpointRequest())
    assert rules.links == set()
    await lab.controller.disconnect("apart", app.id)
    await lab.controller.connect("apart", app.id, EndpointRequest(links=(db.id, app.id)))
    assert len(rules.links) == 1, "and nobody is linked to himself"


async def test_a_start_puts_each_rule_back_once(lab: Lab, rules: Rules, tmp_path: Path):
    await lab.network(options=APART)
    db, app = await lab.sandbox("db", exposed=("80/tcp",)), await lab.sandbox("app")
    await lab.controller.connect("demo", app.id, EndpointRequest(links=(db.id,)))
    await lab.controller.connect("demo", db.id, EndpointRequest(links=(app.id,)))
    again = Lab(tmp_path, lab.store)
    await again.controller.start((), ())
    restored = [step for plan in again.executor.restored for step in plan if isinstance(step, AllowPeer)]
    assert restored == [AllowPeer(client="10.50.0.2", server="10.50.0.3", protocol="tcp", port=80)]
    await again.controller.stop()
    again.journal.close()


class SlowStore(MemoryStore):
    """Lets others go on for a few turns of the loop."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.chance = random.Random(seed)

    async def txn(self, compares: Sequence[Compare], writes: Sequence[Write], *, durable: bool = False) -> int:
        for _ in range(self.chance.randrange(4)):
            await asyncio.sleep(0)
        return await super().txn(compares, writes, durable=durable)


async def test_ends_that_come_and_go_at_once_leave_nothing(lab: Lab, rules: Rules, monkeypatch: pytest.MonkeyPatch):
    """A rule that stayed would open the next owner of an address."""
    await lab.network(options=APART)
    for seed in range(60):
        monkeypatch.setattr(lab.core, "store", slow := SlowStore(seed))
        slow.data = lab.store.data
        db, app = await lab.sandbox("db", exposed=("80/tcp",)), await lab.sandbox("app")
        link = EndpointRequest(links=(db.id,))
        if seed % 2:
            await lab.controller.connect("demo", db.id, EndpointRequest())
            await asyncio.gather(lab.controller.connect("demo", app.id, link), lab.controller.remove_sandbox(db.id))
        else:
            await lab.controller.connect("demo", app.id, link)
            await asyncio.gather(lab.controller.connect("demo", db.id, EndpointRequest()), lab.controller.remove_sandbox(app.id))
        assert rules.links == set(), f"seed {seed}"
        await asyncio.gather(lab.controller.remove_sandbox(app.id), lab.controller.remove_sandbox(db.id))
        assert rules.links == set(), f"seed {seed}"
