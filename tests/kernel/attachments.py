"""Plans as a bridge driver writes them, an executor to apply them, and what the kernel looks like afterwards."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from netplug.kernel.executor import Executor
from netplug.plan import RETIRED_GROUP, Address, Announce, Bridge, Isolate, LinkUp, Masquerade, Plan, Route, Sysctl, Veth
from tests.kernel.inside import FakeFirewall, addresses, command, ip, routes

BRIDGE = Bridge(name="br-test", mac="02:42:00:00:00:01", alias="netplug:test")
NETWORK: Plan = (
    BRIDGE,
    Address(link="br-test", address="10.9.0.1/16"),
    Address(link="br-test", address="fd09::1/64"),
    Sysctl(key="net.ipv4.ip_forward", value="1"),
    Isolate(bridge="br-test", subnets=("10.9.0.0/16",)),
    Masquerade(subnet="10.9.0.0/16"),
)


def mac(number: int) -> str:
    return f"02:42:0a:09:{number >> 8:02x}:{number & 255:02x}"


def attachment(number: int, sandbox: str) -> Plan:
    """What a bridge driver asks for one endpoint."""
    address = f"10.9.{number >> 8}.{number & 255}"
    return (
        Veth(
            name=f"veth{number}",
            peer="eth0",
            peer_namespace=sandbox,
            mac=mac(number),
            mtu=1450,
            master="br-test",
            alias=f"netplug:test/{number}",
        ),
        Address(link="eth0", address=f"{address}/16", namespace=sandbox),
        Address(link="eth0", address=f"fd09::{number:x}/64", namespace=sandbox),
        LinkUp(link="eth0", namespace=sandbox),
        Route(destination="default", gateway="10.9.0.1", link="eth0", namespace=sandbox),
        Route(destination="default", gateway="fd09::1", link="eth0", namespace=sandbox),
        Announce(link="eth0", address=address, mac=mac(number), namespace=sandbox),
    )


@asynccontextmanager
async def executing(firewall: FakeFirewall | None = None) -> AsyncIterator[Executor]:
    executor = Executor(firewall or FakeFirewall())
    await executor.start()
    try:
        yield executor
    finally:
        await executor.close()


def state(*sandboxes: str) -> dict[str, object]:
    """Links, addresses, routes and one sysctl, without numbers that are made anew, once retired bridges are gone."""
    deadline = time.monotonic() + 10
    while any(one["group"] == str(RETIRED_GROUP) for one in ip("link")) and time.monotonic() < deadline:
        pass
    return {
        place: {
            "links": sorted(
                (
                    one["ifname"],
                    one.get("group"),
                    one.get("master"),
                    "UP" in one["flags"],
                    one.get("ifalias"),
                    sorted(addresses(one["ifname"], place)),
                )
                for one in ip("link", namespace=place)
            ),
            "routes": [routes(place, family) for family in ("-4", "-6")],
            "forwarding": command("sysctl", "-n", "net.ipv4.ip_forward", namespace=place),
        }
        for place in ("", *sandboxes)
    }
