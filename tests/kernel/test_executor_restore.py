"""After a restart: the kernel is made to be as the plans say, nothing that is right is touched, and nothing of ours is left beside it."""

from __future__ import annotations

from pathlib import Path

from netplug.kernel import namespaces
from netplug.kernel.outcome import describe
from netplug.plan import DOOMED_GROUP, LINK_GROUP
from tests.kernel.attachments import NETWORK, attachment, executing, state
from tests.kernel.inside import FakeFirewall, Sandboxes, command, in_host, ip, link


@in_host
async def test_restore_puts_back_what_is_missing_and_nothing_else(tmp_path: Path):
    with Sandboxes(tmp_path, 4) as sandboxes:
        firewall = FakeFirewall()
        plans = [NETWORK, *(attachment(number + 2, path) for number, path in enumerate(sandboxes.paths))]
        async with executing(firewall) as executor:
            for plan in plans:
                await executor.apply(plan)
            before = state(*sandboxes.paths)
            firewall.transactions.clear()

            whole = await executor.restore(plans)
            assert (whole.missing, whole.strays, whole.failed) == ([], [], {})
            assert firewall.transactions == [("replace", 2)]
            assert firewall.rules[""] == list(NETWORK[4:])

            command("ip", "link", "del", "veth2")
            command("ip", "link", "set", "veth3", "nomaster", "down")
            command("ip", "address", "del", "10.9.0.4/16", "dev", "eth0", namespace=sandboxes[2])
            command("ip", "route", "replace", "default", "via", "10.9.0.99", namespace=sandboxes[3])
            repaired = await executor.restore(plans)

            assert repaired.failed == {}
            assert repaired.missing == [
                *(describe(step) for step in plans[1][:-1]),
                describe(plans[2][0]),
                "add 10.9.0.4/16 to eth0",
                "add route default via 10.9.0.1 on eth0",
                "add route default via 10.9.0.1 on eth0",
            ]
            assert state(*sandboxes.paths) == before


@in_host
async def test_restore_removes_strays_and_finishes_deletions(tmp_path: Path):
    """What an earlier daemon left: a link without a record, one that it was about to delete. What is not ours stays."""
    with Sandboxes(tmp_path, 2) as sandboxes:
        command("ip", "link", "add", "mine", "type", "veth", "peer", "name", "mine2")
        command(
            "ip", "link", "add", "stray", "group", str(LINK_GROUP), "type", "veth", "peer", "name", "eth0", "netns", "/proc/self/ns/net"
        )
        command("ip", "link", "add", "leaving", "group", str(DOOMED_GROUP), "type", "bridge")
        async with executing() as executor:
            plans = [NETWORK, attachment(2, sandboxes[0])]
            for plan in plans:
                await executor.apply(plan)
            command("ip", "link", "set", "veth2", "group", str(DOOMED_GROUP))

            restored = await executor.restore(plans)

            assert sorted(restored.strays) == ["leaving", "stray"]
            assert restored.missing == [describe(step) for step in plans[1][:-1]]
            assert restored.failed == {}
        assert sorted(one["ifname"] for one in ip("link")) == ["br-test", "lo", "mine", "mine2", "veth2"]
        assert link("veth2")["group"] == str(LINK_GROUP)


@in_host
async def test_restore_says_which_plan_failed_and_goes_on(tmp_path: Path):
    with Sandboxes(tmp_path, 3) as sandboxes:
        plans = [NETWORK, *(attachment(number + 2, path) for number, path in enumerate(sandboxes.paths))]
        async with executing() as executor:
            namespaces.remove(sandboxes[1])
            restored = await executor.restore(plans)

        assert list(restored.failed) == [2]
        assert "No such file or directory" in str(restored.failed[2])
        assert link("veth2")["operstate"] == link("veth4")["operstate"] == "UP"
        assert link("veth3") == {}


@in_host
async def test_restore_makes_a_bridge_that_several_plans_name_once(tmp_path: Path):
    with Sandboxes(tmp_path, 3) as sandboxes:
        plans = [NETWORK[:2] + attachment(number + 2, path) for number, path in enumerate(sandboxes.paths)]
        async with executing() as executor:
            restored = await executor.restore(plans)

        assert restored.failed == {}
        assert restored.missing.count("create bridge br-test") == restored.missing.count("add 10.9.0.1/16 to br-test") == 1
        assert [link(f"veth{number}")["master"] for number in (2, 3, 4)] == ["br-test"] * 3
