"""Who may act in the cluster by a node's name, and who stays outside: another node's name, a copy of its state, an address out of reach."""

from __future__ import annotations

from pathlib import Path

import pytest

from netplug.errors import Conflict
from netplug.store import PREFIX
from tests.cluster.inprocess import Node, keys, network, within
from tests.etcd_members import Cluster


async def test_who_takes_another_node_s_name_changes_nothing(two: list[Node], etcd: Cluster, tmp_path: Path):
    """Also where it has an endpoint of its own, from when it had its own name; once the name is free, it is a node like any other."""
    made = await network(two)
    await two[0].container("a")
    empty = await network(two, name="empty", subnet="10.8.0.0/24")
    late = Node(tmp_path, 3, etcd)
    await late.start()
    try:
        await within(True, lambda: {made.id, empty.id} <= set(late.core.records.networks))
        await late.container("b")
        await late.stop()
        late.name = "n1"
        await late.start()
        before = [key for key in keys(etcd) if not key.startswith("alive/n3")]
        kept = (await two[0].shared.range(f"{PREFIX}endpoints/"))[1]
        sentence = r"another node at 192\.0\.2\.1 calls itself n1: give this one another --node NAME"
        with pytest.raises(Conflict, match=sentence):
            await late.container("c")
        with pytest.raises(Conflict, match=sentence):
            await late.network("other", subnet="10.9.0.0/24")
        with pytest.raises(Conflict, match=sentence):
            await late.controller.remove_network("empty")
        with pytest.raises(Conflict, match=sentence):
            await late.nodes.remove("n2", force=True)
        other = await two[1].container("d")  # once it has heard of that one, it has read all that was there
        await within(True, lambda: other.id in late.core.peers[made.id])
        await two[1].remove("d")
        await within(False, lambda: other.id in late.core.peers[made.id])
        assert [key for key in keys(etcd) if not key.startswith("alive/n3")] == before
        assert (await two[0].shared.range(f"{PREFIX}endpoints/"))[1] == kept
        assert [late.nodes.is_me(node) for node, _ in late.nodes.all() if node.name == "n1"] == [False]
        await two[0].remove("a")
        await two[0].stop()
        await two[1].nodes.remove("n1", force=True)
        await within(True, lambda: late.core.cluster is not None and late.core.cluster.admission.granted)
        await late.container("c")
    finally:
        await late.stop()


@pytest.mark.parametrize(
    ("address", "port", "sentence"),
    [
        (
            "2001:db8::3",
            4789,
            "all nodes of a cluster need addresses of one IP version, give this one such an --advertise, not 2001:db8::3",
        ),
        ("192.0.2.3", 4999, "uses UDP port 4789: give this one --vxlan-port 4789, not 4999"),
    ],
    ids=["IP-version", "port"],
)
async def test_a_node_that_no_frame_would_reach_stays_outside(
    two: list[Node], etcd: Cluster, tmp_path: Path, address: str, port: int, sentence: str
):
    await network(two)
    odd = Node(tmp_path, 3, etcd)
    odd.address, odd.port = address, port
    await odd.start()
    try:
        with pytest.raises(Conflict) as refused:
            await odd.container("c", "demo")
        assert sentence in str(refused.value)
        assert not any(key.endswith("/n3") for key in keys(etcd))
    finally:
        await odd.stop()


async def test_a_copy_of_a_node_s_state_directory_is_no_second_node(two: list[Node], etcd: Cluster, tmp_path: Path):
    """Two machines of one image have one identity; what tells them apart is that they have booted at different times."""
    twin = Node(tmp_path, 1, etcd)
    twin.address = "192.0.2.9"
    await twin.start()
    try:
        with pytest.raises(Conflict, match=r"another node at 192\.0\.2\.1 calls itself n1, with a copy of this one's state directory"):
            await twin.nodes._register()
        assert two[1].nodes.get("n1").address == "192.0.2.1"
    finally:
        await twin.stop()
