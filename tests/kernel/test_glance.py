"""A glance at a sandbox says yes only where all is as its plan wants it; whatever differs, the restore that asks it finds and mends."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from netplug.kernel import links, namespaces, routes
from netplug.kernel.executor import Executor
from netplug.kernel.firewall.iptables import Iptables
from netplug.kernel.firewall.nftables import Nftables
from netplug.kernel.glance import Glance
from netplug.kernel.netlink import NLM_F_DUMP, Message, Refused, Socket
from netplug.plan import Announce, DnsRedirect, Plan, Route
from tests.kernel.attachments import NETWORK, attachment, state
from tests.kernel.inside import Sandboxes, command, in_host

HOST_SIDE = (
    "ip link set veth2 down",
    "ip link set veth2 nomaster",
    "ip link set veth2 alias somebody",
    "bridge link set dev veth2 hairpin off",
    "ip link del veth2",
)
INSIDE = (
    "ip link set eth0 down",
    "ip address del 10.9.0.2/16 dev eth0",
    "ip address del fd09::2/64 dev eth0",
    "ip route del default",
    "ip -6 route del default",
    "ip route replace default via 10.9.0.99",
    "ip route change default dev eth0 scope link",
)
NAMES = (
    "nft flush ruleset",
    "nft flush chain ip netplug output",
    "nft flush chain ip netplug input",
    "nft delete element ip netplug dns '{ 127.0.0.11 . tcp . 53 }'",
    "nft delete element ip netplug answers '{ 127.0.0.11 . tcp . 40002 }'",
    "nft delete element ip netplug dns '{ 127.0.0.11 . udp . 53 }'; nft add element ip netplug dns '{ 127.0.0.11 . udp . 53 : 40009 }'",
    "nft delete element ip netplug answers '{ 127.0.0.11 . udp . 40001 }';"
    " nft add element ip netplug answers '{ 127.0.0.11 . udp . 40001 : 54 }'",
    # As an earlier version had it: by NAT.
    "nft delete table ip netplug; nft add table ip netplug;"
    " nft add map ip netplug dns '{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }';"
    " nft add chain ip netplug output '{ type nat hook output priority -110; }';"
    " nft add rule ip netplug output meta l4proto '{ tcp, udp }' dnat ip to ip daddr . meta l4proto . th dport map @dns;"
    " nft add element ip netplug dns '{ 127.0.0.11 . udp . 53 : 127.0.0.11 . 40001, 127.0.0.11 . tcp . 53 : 127.0.0.11 . 40002 }'",
)


class Sight:
    """An attached sandbox, and a glance at it."""

    def __init__(self, firewall: Nftables, executor: Executor, sandbox: str) -> None:
        self.firewall, self.executor, self.sandbox = firewall, executor, sandbox
        redirect = DnsRedirect(namespace=sandbox, udp_port=40001, tcp_port=40002)
        self.plan: Plan = (*(step for step in attachment(2, sandbox) if not isinstance(step, Announce)), redirect)

    def holds(self, plan: Sequence[object] = ()) -> bool:
        with Socket() as netlink:
            found = links.dump(netlink)
        return Glance(self.firewall, {"": found}).holds(plan or self.plan)  # type: ignore[arg-type]

    async def mended(self) -> list[str]:
        """What a restore puts back; nothing may resist."""
        restored = await self.executor.restore([NETWORK, self.plan])
        assert restored.failed == {}
        return restored.missing

    def state(self) -> dict[str, object]:
        return {**state(self.sandbox), "names": command("nft", "list", "ruleset", namespace=self.sandbox)}


@asynccontextmanager
async def attached(folder: Path) -> AsyncIterator[Sight]:
    firewall = Nftables()
    firewall.start()
    with Sandboxes(folder, 1) as sandboxes:
        executor = Executor(firewall)
        await executor.start()
        try:
            sight = Sight(firewall, executor, sandboxes[0])
            await executor.apply(NETWORK)
            await executor.apply(sight.plan)
            yield sight
        finally:
            await executor.close()


@in_host
async def test_what_is_as_it_was_left_is_seen_at_a_glance_and_not_touched(tmp_path: Path):
    async with attached(tmp_path) as sight:
        before = sight.state()
        assert sight.holds()
        assert sight.holds(sight.plan[:-1])
        assert await sight.mended() == []
        assert sight.state() == before


@in_host
async def test_whatever_differs_is_seen_and_mended(tmp_path: Path):
    async with attached(tmp_path) as sight:
        before = sight.state()
        broken = [*((line, "") for line in HOST_SIDE), *((line, sight.sandbox) for line in (*INSIDE, *NAMES))]
        for line, place in broken:
            command("sh", "-ec", line, namespace=place)
            assert not sight.holds(), line
            assert await sight.mended() or line in HOST_SIDE, line
            assert sight.holds(), line
            assert sight.state() == before, line


@in_host
async def test_an_address_counts_where_it_should_be_and_as_long_as_it_should_be(tmp_path: Path):
    async with attached(tmp_path) as sight:
        for other in ("10.9.0.2/16 dev lo", "10.9.0.2/24 dev eth0"):
            command("sh", "-ec", f"ip address del 10.9.0.2/16 dev eth0; ip address add {other}", namespace=sight.sandbox)
            assert not sight.holds(), other
            assert "add 10.9.0.2/16 to eth0" in await sight.mended()
            assert sight.holds(), other
            command("sh", "-ec", f"ip address del {other}", namespace=sight.sandbox)


@in_host
async def test_a_doubt_is_no_difference(tmp_path: Path):
    """Somebody's own route to where the way out is asked for: it is looked at closely, and nothing is wrong."""
    async with attached(tmp_path) as sight:
        command("ip", "route", "add", "192.0.2.0/24", "via", "10.9.0.7", namespace=sight.sandbox)
        before = sight.state()
        assert not sight.holds()
        assert await sight.mended() == []
        assert sight.state() == before


@in_host
async def test_more_than_one_address_of_an_interface_is_no_difference(tmp_path: Path):
    async with attached(tmp_path) as sight:
        command("ip", "address", "add", "10.9.7.7/16", "dev", "eth0", namespace=sight.sandbox)
        command("nft", "add", "element", "ip", "netplug", "dns", "{ 127.0.0.11 . tcp . 54 : 1 }", namespace=sight.sandbox)
        assert sight.holds()


@in_host
async def test_nothing_is_said_of_what_is_not_a_sandboxs(tmp_path: Path):
    async with attached(tmp_path) as sight:
        assert not sight.holds(NETWORK[:1])
        assert not sight.holds(NETWORK[1:2])
        namespaces.remove(sight.sandbox)
        assert not sight.holds()


def test_a_backend_that_has_to_run_a_program_says_nothing_at_a_glance():
    assert not Iptables().redirects(DnsRedirect(namespace="/x", udp_port=1, tcp_port=2))


@in_host
def test_several_questions_have_an_answer_each():
    """Of a route, of the same again, and of all links."""
    everybody = Message(links.RTM_GETLINK, links.header(), NLM_F_DUMP)
    command("ip", "route", "add", "default", "dev", "lo")
    way = routes.question(Route(destination="default", link="lo"))
    with Socket() as netlink:
        first, second, dumped = netlink.ask([way, way, everybody])
    assert first == second
    assert len(first) == 1
    assert "lo" in [links.parse_name(body) for body in dumped]


@in_host
def test_a_question_that_is_refused_is_an_error():
    nowhere = routes.question(Route(destination="10.1.2.0/24", link="lo"))
    with Socket() as netlink, pytest.raises(Refused) as refused:
        netlink.ask([nowhere, nowhere])
    assert refused.value.errno == errno.ENETUNREACH


@in_host
def test_the_state_of_a_link():
    with Socket() as netlink:
        assert links.state(netlink, "lo") == (1, True)
        command("ip", "link", "set", "lo", "down")
        assert links.state(netlink, "lo") == (1, False)
        with pytest.raises(OSError, match="No such device"):
            links.state(netlink, "nobody")
