"""netplug's driver for plugins, and netplug as the plugin: each against the other, on one host."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from netplug.kernel import syscalls
from netplug.model import Endpoint, Network, PoolConfig, Sandbox
from netplug.plugins.calls import PluginRefused
from netplug_drivers.remote import Remote
from netplug_ipam.remote import Remote as RemoteIpam
from tests.hosts import Host, Lan
from tests.kernel.attachments import executing
from tests.kernel.inside import Sandboxes, addresses, command


def on(host: Host, test: Callable[[], Awaitable[None]]) -> None:
    """Run it in a thread of the host's."""
    raised: list[BaseException] = []

    def body() -> None:
        try:
            syscalls.visit_network(syscalls.Descriptor(host.namespace.path))
            asyncio.run(asyncio.wait_for(test(), 60))  # type: ignore[arg-type]
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def tied(host: Host) -> list[str]:
    """Whose networks the plugin has."""
    with contextlib.closing(sqlite3.connect(f"file:{host.state_directory}/netplug.db?mode=ro", uri=True)) as store:
        rows = store.execute("select value from kv where key like '/netplug/v1/docker-networks/%'").fetchall()
    return [msgspec.json.decode(value)["engine"] for (value,) in rows]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NETPLUG_PLUGIN_PATH", str(tmp_path))
    return tmp_path


def test_a_container_of_one_is_on_the_network_of_the_other(folder: Path) -> None:
    with Lan() as lan, Host(lan, "--docker-plugin", str(folder / "netplug.sock")) as host:
        host.start()
        host.netplug("network", "create", "--subnet", "10.9.0.0/24", "demo", check=True)
        host.netplug("run", "--detach", "--name", "mine", "--network", "demo", "host", "sleep", "1000000", check=True)
        before = host.state()

        async def life() -> None:
            driver = Remote("netplug")
            network = Network(id="ab" * 32, name="theirs", driver="netplug", created="", options={"netplug.network": "demo"})
            with Sandboxes(folder, 1) as (place,):
                sandbox = Sandbox(id="cd" * 32, name="web", created="", namespace=place, kind="given", cookie=1, incarnation="x")
                endpoint = Endpoint(
                    id="ef" * 32, network=network.id, sandbox=sandbox.id, created="", container_name="web", interface="eth0"
                )
                await driver.make(network)
                assert tied(host) == ["netplug"], "no engine that the other is told to ask has it"
                given = await driver.attach(network, endpoint, sandbox)
                joined = msgspec.structs.replace(endpoint, address=given.address, gateway=given.gateway, mac=given.mac, attachment=given)
                async with executing() as executor:
                    await executor.apply(driver.join(network, joined, sandbox))
                    assert addresses("eth0", place) == {"10.9.0.3/24"}
                    command("nsenter", f"--net={place}", "ping", "-c", "1", "-W", "3", "10.9.0.2")
                    assert await executor.remove(driver.leave(network, joined, sandbox)) == []
                await driver.detach(network.id, endpoint.id)
                await driver.unmake(network.id)

        on(host, life)

        assert host.state() == before


def test_a_daemon_is_no_plugin_of_its_own(folder: Path) -> None:
    with Lan() as lan, Host(lan, "--docker-plugin", str(folder / "netplug.sock"), environment={"NETPLUG_PLUGIN_PATH": str(folder)}) as host:
        host.start()

        refused = host.netplug("network", "create", "--driver", "netplug", "loop")

        assert refused.returncode != 0
        assert 'plugin "netplug" is this daemon itself' in refused.stderr
        assert "loop" not in host.netplug("network", "ls").stdout


def test_addresses_of_one_are_lent_by_the_other(folder: Path) -> None:
    """Who lost an answer asks by the same word again: nothing is lent in vain, also over the lender's death."""
    with Lan() as lan, Host(lan, "--docker-plugin", str(folder / "netplug.sock")) as host:
        host.start()
        host.netplug("network", "create", "--subnet", "10.9.0.0/24", "demo", check=True)

        async def life() -> None:
            ipam = RemoteIpam("netplug")
            pool = await ipam.lend_pool(PoolConfig(subnet=""), {}, 4, "net/0")
            assert await ipam.lend_pool(PoolConfig(subnet=""), {}, 4, "net/0") == pool
            pool = msgspec.structs.replace(pool, gateway=await ipam.lend_gateway(pool, "", "net/0/gateway"))
            first = await ipam.lend(pool, "", "", "endpoint/4")
            await asyncio.to_thread(host.kill9)
            await asyncio.to_thread(host.start)
            assert await ipam.lend(pool, "", "", "endpoint/4") == first
            second = await ipam.lend(pool, "", "", "other/4")
            assert len({first, second, pool.gateway}) == 3
            with pytest.raises(PluginRefused, match="Address already in use"):
                await ipam.lend(pool, first, "", "third/4")
            with pytest.raises(PluginRefused, match="Pool overlaps"):
                await ipam.lend_pool(PoolConfig(subnet="10.9.0.0/25"), {}, 4, "net/1")
            await ipam.take_back(pool, first)
            assert await ipam.lend(pool, first, "", "third/4") == first
            for address in (first, second, pool.gateway):
                await ipam.take_back(pool, address)
            await ipam.take_back_pool(pool)

        on(host, life)
        with contextlib.closing(sqlite3.connect(f"file:{host.state_directory}/netplug.db?mode=ro", uri=True)) as store:
            assert store.execute("select key from kv where key like '/netplug/v1/leased-%'").fetchall() == []
