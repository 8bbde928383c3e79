"""What the watch hears, from the real kernel: losses in the host and in a sandbox with those who caused them, and little of our own."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from netplug.kernel import namespaces
from netplug.kernel.firewall import legacy, processes
from netplug.kernel.firewall.libnftables import Context
from netplug.kernel.losses import UNKNOWN, Loss
from netplug.kernel.watch import Watch
from netplug.plan import DOOMED_GROUP, HOST, LINK_GROUP, RETIRED_GROUP
from tests.kernel.inside import Sandboxes, command, in_host

MARKER = "inet marker"


@asynccontextmanager
async def watching(*paths: str) -> AsyncIterator[asyncio.Queue[Loss]]:
    watch = Watch()
    heard: asyncio.Queue[Loss] = asyncio.Queue()
    watch.lost = heard.put_nowait
    watch.start()
    try:
        for path in paths:
            watch.follow(path)
        yield heard
    finally:
        watch.close()


async def heard_until_marker(heard: asyncio.Queue[Loss]) -> list[Loss]:
    """All that the kernel has told so far: the two sockets are read in turn, so both get a marker that comes last."""
    command("nft", "add", "table", *MARKER.split())
    command("nft", "delete", "table", *MARKER.split())
    command("ip", "address", "add", "192.0.2.99/32", "dev", "lo")
    command("ip", "address", "del", "192.0.2.99/32", "dev", "lo")
    found: list[Loss] = []
    missing = {MARKER, "192.0.2.99"}
    while missing:
        loss = await heard.get()
        missing.discard(loss.name)
        if loss.name not in (MARKER, "192.0.2.99"):
            found.append(loss)
    while not heard.empty():
        heard.get_nowait()
    return found


def without_link_local(losses: list[Loss]) -> list[tuple[str, str, str]]:
    return list(dict.fromkeys((one.namespace, one.kind, one.name) for one in losses if not one.name.startswith("fe80")))


def build(sandbox: str) -> None:
    """A bridge with a port whose far end is in the sandbox."""
    command("ip", "link", "add", "br0", "type", "bridge")
    command("ip", "link", "set", "br0", "up")
    command("ip", "address", "add", "10.9.0.1/24", "dev", "br0")
    command("ip", "link", "add", "v0", "master", "br0", "type", "veth", "peer", "name", "eth0", "netns", sandbox)
    command("ip", "link", "set", "v0", "up")
    command("ip", "address", "add", "10.9.0.2/24", "dev", "eth0", namespace=sandbox)
    command("ip", "link", "set", "eth0", "up", namespace=sandbox)
    command("ip", "route", "add", "default", "via", "10.9.0.1", "proto", "112", namespace=sandbox)


@in_host
async def test_what_comes_is_not_heard_and_what_goes_is(tmp_path: Path):
    with Sandboxes(tmp_path, 1) as sandboxes:
        (path,) = sandboxes.paths
        async with watching(path) as heard:
            build(path)
            assert without_link_local(await heard_until_marker(heard)) == []
            for argv, namespace, expected in (
                ("ip route del default", path, (path, "route", "10.9.0.1")),
                ("ip route del 10.9.0.0/24", path, (path, "route", "10.9.0.0/24")),
                ("ip address del 10.9.0.2/24 dev eth0", path, (path, "address", "10.9.0.2")),
                ("ip link set eth0 down", path, (path, "link", "eth0")),
                ("ip link set v0 nomaster", "", (HOST, "port", "v0")),
                ("ip address del 10.9.0.1/24 dev br0", "", (HOST, "address", "10.9.0.1")),
                ("sysctl -qw net.ipv4.ip_forward=0", "", None),
                ("sysctl -qw net.ipv4.ip_forward=1", "", (HOST, "sysctl", "net.ipv4.ip_forward")),
                ("ip link set br0 down", "", (HOST, "link", "br0")),
                ("ip link del br0", "", (HOST, "link", "br0")),
                ("ip link del v0", "", (HOST, "link", "v0")),
            ):
                command(*argv.split(), namespace=namespace)
                found = without_link_local(await heard_until_marker(heard))
                assert expected is None or expected in found, (argv, found)


@in_host
async def test_what_we_have_given_up_ourselves_is_not_heard():
    """Links in the groups for it go unheard, however they go; those of any other group do not."""
    async with watching() as heard:
        for name, group in (("doomed", DOOMED_GROUP), ("retired", RETIRED_GROUP), ("ours", LINK_GROUP), ("foreign", 0)):
            command("ip", "link", "add", name, "group", str(group), "type", "bridge")
            command("ip", "link", "set", name, "up")
            command("ip", "link", "set", name, "down")
            command("ip", "link", "set", name, "up")
            command("ip", "link", "del", name)
        found = [(one.kind, one.name) for one in await heard_until_marker(heard) if one.kind == "link"]
        assert found == [("link", "ours")] * 3 + [("link", "foreign")] * 3


@in_host
async def test_who_did_it_is_told(tmp_path: Path):
    with Sandboxes(tmp_path, 1) as sandboxes:
        async with watching(*sandboxes.paths) as heard:
            command("nft", "add", "table", "inet", "foreign")
            command("nft", "add", "table", "ip", "foreign", namespace=sandboxes.paths[0])
            command("ip", "address", "add", "10.9.0.1/24", "dev", "lo")
            command("ip", "address", "del", "10.9.0.1/24", "dev", "lo")
            found = {one[:3]: one.by for one in await heard_until_marker(heard)}
            assert re.fullmatch(r"nft \(pid \d+\)", found[HOST, "table", "inet foreign"])
            assert re.fullmatch(r"nft \(pid \d+\)", found[sandboxes.paths[0], "table", "ip foreign"])
            assert re.search(r"pid \d+", found[HOST, "address", "10.9.0.1"])


@in_host
async def test_own_transactions_are_not_heard(tmp_path: Path):
    """By our contexts, here and in a sandbox, and by programs that we run."""
    with Sandboxes(tmp_path, 1) as sandboxes:
        (path,) = sandboxes.paths
        async with watching(path) as heard:
            contexts = [Context(), Context()]
            with namespaces.entered(path):
                contexts.append(Context())
            for context in contexts:
                for number in range(3):
                    context.transact(f"add table inet own{number}; delete table inet own{number}")
                    await asyncio.sleep(0)
            assert processes.run(["iptables-nft", "-P", "FORWARD", "DROP"]).returncode == 0
            assert await heard_until_marker(heard) == []
            for context in contexts:
                context.close()


@in_host
async def test_a_sandbox_that_is_forgotten_is_not_heard(tmp_path: Path):
    with Sandboxes(tmp_path, 2) as sandboxes:
        watch = Watch()
        heard: asyncio.Queue[Loss] = asyncio.Queue()
        watch.lost = heard.put_nowait
        watch.start()
        for path in (*sandboxes.paths, str(tmp_path / "nothing")):
            watch.follow(path)
        watch.forget(sandboxes.paths[0])
        for path in sandboxes.paths:
            command("ip", "address", "add", "10.9.0.1/24", "dev", "lo", namespace=path)
            command("ip", "address", "del", "10.9.0.1/24", "dev", "lo", namespace=path)
        found = await heard_until_marker(heard)
        assert {one.namespace for one in found} == {sandboxes.paths[1]}
        watch.close()


@in_host
async def test_what_did_not_fit_is_said(tmp_path: Path, monkeypatch):
    """Who falls behind must look at everything."""
    monkeypatch.setattr("netplug.kernel.watch._BUFFER", 1)
    async with watching() as heard:
        script = "".join(f"address add 10.9.{number // 250}.{number % 250 + 1}/32 dev lo\n" for number in range(500))
        (tmp_path / "add").write_text(script)
        (tmp_path / "del").write_text(script.replace("address add", "address del"))
        for name in ("add", "del"):
            command("ip", "-batch", str(tmp_path / name))
        assert UNKNOWN in [await heard.get() for _ in range(heard.qsize() or 3)]


@in_host
def test_legacy_tables_show_that_they_were_changed():
    """Looking makes none, and counters are no change."""
    assert legacy.signature() == ()
    seen = [legacy.signature()]
    for arguments in (
        "-P FORWARD DROP",
        "-A INPUT -s 192.0.2.1 -j DROP",
        "-P FORWARD ACCEPT",
        "-F",
        "-t nat -A POSTROUTING -o none0 -j MASQUERADE",
    ):
        command("iptables-legacy", *arguments.split())
        assert legacy.signature() not in seen[-1:]
        seen.append(legacy.signature())
        command("ping", "-c1", "127.0.0.1")
        assert legacy.signature() == seen[-1]
    assert [table.forward_drops for state in seen for table in state if table.name == "ip filter"] == [True, True, False, False, False]
