"""The executor on the real kernel: all or nothing, again and again, and many at once."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import pytest

from netplug.errors import StepFailed
from netplug.kernel import namespaces
from netplug.kernel.outcome import describe
from netplug.plan import (
    LINK_GROUP,
    ROUTE_PROTOCOL,
    Address,
    Announce,
    Bridge,
    DnsRedirect,
    FlushFlows,
    LinkUp,
    Masquerade,
    Netns,
    Plan,
    Publish,
    Remove,
    Route,
    Step,
    Sysctl,
    Veth,
    removal,
)
from tests.kernel.attachments import BRIDGE, NETWORK, attachment, executing, mac, state
from tests.kernel.inside import FakeFirewall, Sandboxes, addresses, command, in_host, ip, link, routes


@in_host
async def test_a_network_and_an_endpoint(tmp_path: Path):
    with Sandboxes(tmp_path, 1) as sandboxes:
        async with executing() as executor:
            await executor.apply(NETWORK)
            applied = await executor.apply(attachment(2, sandboxes[0]))

        bridge, near, far = link("br-test"), link("veth2"), link("eth0", sandboxes[0])
        assert (bridge["group"], bridge["ifalias"], bridge["address"]) == (str(LINK_GROUP), "netplug:test", BRIDGE.mac)
        assert (near["group"], near["ifalias"], near["master"]) == (str(LINK_GROUP), "netplug:test/2", "br-test")
        assert near["linkinfo"]["info_slave_data"]["hairpin"] is True
        assert (near["mtu"], far["mtu"]) == (1450, 1450)
        assert far["address"] == mac(2)
        assert addresses("br-test") == {"10.9.0.1/16", "fd09::1/64"}
        assert addresses("eth0", sandboxes[0]) == {"10.9.0.2/16", "fd09::2/64"}
        assert routes(sandboxes[0])["default"] == ("10.9.0.1", "eth0", str(ROUTE_PROTOCOL))
        assert routes(sandboxes[0], "-6")["default"] == ("fd09::1", "eth0", str(ROUTE_PROTOCOL))
        assert "1 received" in command("ping", "-n", "-c1", "-W2", "10.9.0.1", namespace=sandboxes[0])
        assert applied.changed == attachment(2, sandboxes[0])[:-1]


@in_host
async def test_the_broadcast_address_is_set():
    async with executing() as executor:
        await executor.apply(NETWORK[:2])

    (record,) = [one for shown in ip("address", "show", "dev", "br-test") for one in shown["addr_info"] if one["family"] == "inet"]
    assert record["broadcast"] == "10.9.255.255"


@in_host
async def test_applying_again_changes_nothing(tmp_path: Path):
    with Sandboxes(tmp_path, 1) as sandboxes:
        async with executing() as executor:
            plan = NETWORK + attachment(2, sandboxes[0])
            first = await executor.apply(plan)
            before = state(sandboxes[0])
            again = await executor.apply(plan)

        assert len(first.changed) == len(plan) - 1
        assert again.changed == ()
        assert again.undo == ()
        assert state(sandboxes[0]) == before


@in_host
async def test_undo_of_what_was_applied_leaves_the_host_as_it_was(tmp_path: Path):
    with Sandboxes(tmp_path, 1) as sandboxes:
        before = state(sandboxes[0])
        async with executing() as executor:
            applied = await executor.apply(NETWORK + attachment(2, sandboxes[0]))
            errors = await executor.remove(applied.undo)

        assert errors == []
        assert state(sandboxes[0]) == before


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (Route(destination="10.50.0.0/16", gateway="192.0.2.1", link="br-test"), "Nexthop has invalid gateway"),
        (LinkUp(link="eth7"), "there is no link eth7"),
        (Sysctl(key="net.ipv4.conf.eth7.forwarding", value="1"), "No such file or directory"),
        (Publish(protocol="tcp", host_port=80, address="10.9.0.2", port=80), "refused by the test"),
        (Veth(name="veth9", peer="eth0", peer_namespace="/nonexistent", mac=mac(9)), "No such file or directory"),
        (Veth(name="veth9", peer="eth9", peer_namespace="", mac=mac(9), master="br-none"), "there is no link br-none"),
        (Veth(name="lo", peer="eth9", peer_namespace="", mac=mac(9)), "it is not ours"),
        (Bridge(name="lo", mac=mac(9)), "it is no bridge"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Step) else None,
)
@in_host
async def test_a_failure_in_the_middle_leaves_nothing(tmp_path: Path, last: Step, reason: str):
    """Every kind of failing step, after everything else of a network and an endpoint was done, and before more."""
    firewall = FakeFirewall()
    firewall.refused.add(Publish(protocol="tcp", host_port=80, address="10.9.0.2", port=80))
    with Sandboxes(tmp_path, 1) as sandboxes:
        before = state(sandboxes[0])
        async with executing(firewall) as executor:
            plan = NETWORK + attachment(2, sandboxes[0])
            with pytest.raises(StepFailed, match=re.escape(reason)) as failed:
                await executor.apply((*plan, last, Masquerade(subnet="10.77.0.0/16")))

        assert state(sandboxes[0]) == before
        assert firewall.rules.get("", []) == []
        assert failed.value.step == describe(last)
        assert failed.value.undone


@in_host
async def test_a_failure_leaves_what_was_there_before(tmp_path: Path):
    """Only what the plan itself changed is taken back: not the bridge of the user, the address it had, or the route it replaced."""
    with Sandboxes(tmp_path, 1) as sandboxes:
        command("ip", "link", "add", "br-test", "type", "bridge")
        command("ip", "address", "add", "10.9.0.1/16", "dev", "br-test")
        command("ip", "link", "add", "uplink", "up", "type", "veth", "peer", "name", "far")
        command("ip", "address", "add", "10.8.0.2/24", "dev", "uplink")
        command("ip", "route", "add", "default", "via", "10.8.0.1", "proto", "dhcp", "metric", "0", "dev", "uplink")
        command("ip", "-6", "address", "add", "fd08::2/64", "dev", "uplink", "nodad")
        command("ip", "-6", "route", "add", "default", "via", "fd08::1", "dev", "uplink", "proto", "static")
        before = state(sandboxes[0])
        async with executing() as executor:
            taking_over: Plan = (
                Route(destination="default", gateway="10.8.0.7", link="uplink"),
                Route(destination="default", gateway="fd08::7", link="uplink"),
            )
            with pytest.raises(StepFailed):
                await executor.apply((*NETWORK, *taking_over, *attachment(2, sandboxes[0]), LinkUp(link="missing")))
            assert state(sandboxes[0]) == before

            applied = await executor.apply(taking_over)
            assert routes()["default"] == ("10.8.0.7", "uplink", str(ROUTE_PROTOCOL))
            assert await executor.remove(applied.undo) == []

        assert state(sandboxes[0]) == before


@in_host
async def test_a_bridge_of_the_user_is_used_and_never_removed():
    command("ip", "link", "add", "br-test", "type", "bridge")
    async with executing() as executor:
        applied = await executor.apply((BRIDGE,))
        assert applied.changed == (LinkUp(link="br-test"),)
        assert "ifalias" not in link("br-test")
        assert await executor.remove((Remove(op=BRIDGE),)) == []

    assert link("br-test")["group"] == "default"


@in_host
async def test_removing_twice_is_no_error(tmp_path: Path):
    with Sandboxes(tmp_path, 1) as sandboxes:
        before = state(sandboxes[0])
        async with executing() as executor:
            plan = NETWORK[:3] + attachment(2, sandboxes[0])
            await executor.apply(plan)
            assert await executor.remove(removal(plan)) == []
            assert state(sandboxes[0]) == before
            assert await executor.remove(removal(plan)) == []

        assert state(sandboxes[0]) == before


@in_host
async def test_removing_although_the_sandbox_is_gone(tmp_path: Path):
    with Sandboxes(tmp_path, 1) as sandboxes:
        plan = (*attachment(2, sandboxes[0]), DnsRedirect(udp_port=1, tcp_port=2, namespace=sandboxes[0]))
        async with executing() as executor:
            await executor.apply(NETWORK[:2] + plan)
            namespaces.remove(sandboxes[0])
            assert await executor.remove(removal(plan)) == []

        assert link("veth2") == {}


@in_host
async def test_removal_goes_on_past_an_error(tmp_path: Path):
    """Remove what can be removed, and say what could not."""
    refused = Remove(op=Masquerade(subnet="10.77.0.0/16"))
    firewall = FakeFirewall()
    firewall.refused.add(refused)  # type: ignore[arg-type]
    async with executing(firewall) as executor:
        await executor.apply((*NETWORK, refused.op))
        errors = await executor.remove((refused, *removal(NETWORK)))

    assert [str(error) for error in errors] == ["change the rules: refused by the test"]
    assert link("br-test") == {}
    assert firewall.rules[""] == [refused.op]


@in_host
async def test_removal_inside_an_applied_plan_is_undone_too(tmp_path: Path):
    """Moving a gateway: the old route goes, the new one fails, the old one is back."""
    with Sandboxes(tmp_path, 1) as sandboxes:
        async with executing() as executor:
            endpoint = attachment(2, sandboxes[0])
            await executor.apply(NETWORK[:3] + endpoint)
            before = state(sandboxes[0])
            with pytest.raises(StepFailed, match=r"add route default via 192\.0\.2\.9 on eth0"):
                await executor.apply(
                    (
                        Remove(op=endpoint[4], namespace=sandboxes[0]),
                        Remove(op=endpoint[1]),
                        Route(destination="default", gateway="192.0.2.9", link="eth0", namespace=sandboxes[0]),
                    )
                )

        assert state(sandboxes[0]) == before


@in_host
async def test_a_namespace_is_made_and_removed_by_a_plan(tmp_path: Path):
    path = str(tmp_path / "netns" / "new")
    plan: Plan = (Netns(path=path), Sysctl(key="net.ipv4.ip_forward", value="1", namespace=path))
    async with executing() as executor:
        applied = await executor.apply(plan)
        cookie = namespaces.cookie(path)
        again = await executor.apply(plan)

        assert cookie is not None
        assert namespaces.cookie(path) == cookie
        assert (applied.changed, again.changed) == (plan, ())
        with pytest.raises(StepFailed):
            await executor.apply((Netns(path=path + "2"), LinkUp(link="missing", namespace=path + "2")))
        assert not Path(path + "2").exists()
        assert await executor.remove(removal(plan)) == []
        assert not Path(path).exists()


@in_host
async def test_a_plan_that_nobody_can_do_is_undone():
    async with executing() as executor:
        with pytest.raises(ValueError, match="is not an IP address"):
            await executor.apply((BRIDGE, Sysctl(key="net.ipv4.ip_forward", value="1"), Address(link="br-test", address="nonsense/8")))

    assert link("br-test") == {}


@in_host
async def test_firewall_steps_of_a_namespace_are_one_transaction(tmp_path: Path):
    firewall = FakeFirewall()
    ports = tuple(Publish(protocol="tcp", host_port=port, address="10.9.0.2", port=port) for port in range(8000, 8032))
    async with executing(firewall) as executor:
        applied = await executor.apply((*ports, FlushFlows(protocol="udp", port=53), DnsRedirect(udp_port=1, tcp_port=2, namespace="/x")))

    assert firewall.transactions == [("", 32), ("/x", 1)]
    assert applied.changed == (*ports, DnsRedirect(udp_port=1, tcp_port=2, namespace="/x"))


@in_host
async def test_fifty_at_once(tmp_path: Path):
    with Sandboxes(tmp_path, 50) as sandboxes:
        async with executing() as executor:
            await executor.apply(NETWORK)
            plans = [attachment(number + 2, path) for number, path in enumerate(sandboxes.paths)]
            await asyncio.gather(*(executor.apply(plan) for plan in plans))
            assert len([one for one in ip("link") if one.get("master") == "br-test"]) == 50

            await asyncio.gather(*(executor.remove(removal(plan)) for plan in plans))

        assert [one["ifname"] for one in ip("link")] == ["lo", "br-test"]


@in_host
async def test_a_name_can_be_used_again_at_once(tmp_path: Path):
    """A link on its way out is waited for, whoever asks for its name."""
    with Sandboxes(tmp_path, 1) as sandboxes:
        async with executing() as executor:
            await executor.apply(NETWORK[:2])
            plan = attachment(2, sandboxes[0])
            await executor.apply(plan)
            for _ in range(10):
                _, applied = await asyncio.gather(executor.remove((Remove(op=plan[0]),)), executor.apply(plan))
                assert applied.changed == plan[:-1]

        assert link("veth2")["operstate"] == "UP"


@in_host
async def test_an_index_that_is_taken_is_chosen_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from netplug.kernel import links

    with Sandboxes(tmp_path, 2) as sandboxes:
        async with executing() as executor:
            await executor.apply(NETWORK[:2])
            await executor.apply(attachment(2, sandboxes[0]))
            taken, taken_inside = link("veth2")["ifindex"], link("eth0", sandboxes[0])["ifindex"]
            choices = iter([taken, 3_000_001, 3_000_002, 3_000_003])
            monkeypatch.setattr(links, "choose_index", lambda: next(choices))
            await executor.apply(attachment(3, sandboxes[1]))
            assert (link("veth3")["ifindex"], link("eth0", sandboxes[1])["ifindex"]) == (3_000_002, 3_000_003)

            choices = iter([4_000_001, taken_inside, 4_000_002, 4_000_003])
            second = Veth(name="veth4", peer="eth1", peer_namespace=sandboxes[0], mac=mac(4), master="br-test")
            await executor.apply((second, LinkUp(link="eth1", namespace=sandboxes[0])))

        assert link("eth1", sandboxes[0])["ifindex"] == 4_000_003


@in_host
async def test_neighbours_hear_of_a_new_mac_at_once(tmp_path: Path):
    with Sandboxes(tmp_path, 2) as sandboxes:
        async with executing() as executor:
            await executor.apply(NETWORK)
            await executor.apply(attachment(2, sandboxes[0]))
            command("ip", "neigh", "add", "10.9.0.3", "lladdr", "02:42:de:ad:be:ef", "nud", "stale", "dev", "br-test")
            await executor.apply(attachment(3, sandboxes[1]))

            deadline = time.monotonic() + 5
            while ip("neigh", "show", "10.9.0.3")[0].get("lladdr") != mac(3):
                assert time.monotonic() < deadline


@in_host
async def test_an_announcement_never_fails_a_plan(caplog: pytest.LogCaptureFixture):
    announcements = (
        Announce(link="missing", address="10.9.0.2", mac=mac(2)),
        Announce(link="lo", address="fd09::2", mac=mac(2)),
        Announce(link="lo", address="10.9.0.2", mac=mac(2), namespace="/nonexistent"),
    )
    async with executing() as executor:
        applied = await executor.apply(announcements)

    assert applied.changed == ()
    assert "announce 10.9.0.2 on missing: No such device" in caplog.text


@in_host
async def test_steps_in_the_namespace_of_another_host(tmp_path: Path):
    """A bridge in a namespace, and a veth between two namespaces: what an overlay is made of. Both ends know their places."""
    with Sandboxes(tmp_path, 2) as sandboxes:
        overlay, container = sandboxes.paths
        plan: Plan = (
            Bridge(name="br0", mac=mac(1), namespace=overlay),
            Veth(name="port", peer="eth0", peer_namespace=container, mac=mac(2), master="br0", namespace=overlay),
            LinkUp(link="eth0", namespace=container),
            Veth(name="up", peer="home", peer_namespace="", mac=mac(3), namespace=overlay),
        )
        async with executing() as executor:
            applied = await executor.apply(plan)
            assert applied.changed == plan
            assert (await executor.apply(plan)).changed == ()
            assert link("port", overlay)["master"] == "br0"
            assert link("eth0", container)["operstate"] == "UP"
            assert link("home")["address"] == mac(3)

            assert await executor.remove(removal(plan)) == []

        assert [one["ifname"] for place in ("", overlay, container) for one in ip("link", namespace=place)] == ["lo"] * 3


@in_host
async def test_cancelling_undoes_the_plan(tmp_path: Path):
    """A client that goes away while links are being deleted."""
    with Sandboxes(tmp_path, 1) as sandboxes:
        async with executing() as executor:
            await executor.apply(NETWORK)
            plan = attachment(2, sandboxes[0])
            await executor.apply(plan)
            extra = Address(link="br-test", address="10.10.0.1/16")
            task = asyncio.create_task(executor.apply((extra, Remove(op=plan[0]))))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        assert "10.10.0.1/16" not in addresses("br-test")
        assert link("veth2")["master"] == "br-test"
