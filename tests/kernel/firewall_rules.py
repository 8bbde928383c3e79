"""Firewall backends in the lab's host, and short words for the ops that its tests need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest

from netplug.kernel.firewall import Firewall, FirewallStep, backend
from netplug.kernel.firewall.iptables import Iptables
from netplug.kernel.namespaces import entered
from netplug.plan import HOST, AnyOp, Direct, FirewallOp, GatewayMode, Guard, Isolate, Masquerade, Publish, Remove, Step
from tests.kernel.firewall_lab import ADDRESS, ADDRESS6, CONTAINERS, KINDS, MAC, SUBNETS, Lab

BACKENDS = ("nftables", "iptables-nft", "iptables-legacy")
"""Those that the packet tests run with: whoever adds one here gets all of them."""

nftables_only = pytest.mark.parametrize("firewall", ["nftables"], indirect=True)
"""For tests that reach into nftables' own tables."""


def make(name: str, *, accept_mark: str = "") -> Firewall:
    """The backend of that name; of iptables the variant, whatever the machine uses."""
    tool, _, variant = name.partition("-")
    return Iptables(accept_mark=accept_mark, variant=variant) if variant else backend(tool, accept_mark=accept_mark)


class HostFirewall:
    """A backend, called in the lab's host."""

    def __init__(self, lab: Lab, backend: Firewall) -> None:
        self.lab, self.backend = lab, backend

    def start(self) -> None:
        with entered(self.lab.path("h")):
            self.backend.start()

    def apply(self, *steps: FirewallStep, namespace: str = HOST) -> list[Step]:
        with entered(self.lab.path("h")):
            return self.backend.apply(namespace, steps)

    def remove(self, *ops: FirewallOp, namespace: str = HOST) -> list[Step]:
        return self.apply(*removal(ops), namespace=namespace)

    def replace(self, ops: Sequence[FirewallOp]) -> None:
        with entered(self.lab.path("h")):
            self.backend.replace(ops)

    def heal(self) -> list[str]:
        with entered(self.lab.path("h")):
            return self.backend.heal()

    def clear(self) -> None:
        with entered(self.lab.path("h")):
            self.backend.clear()


def removal(ops: Sequence[FirewallOp]) -> list[Remove]:
    return [Remove(op=cast(AnyOp, op)) for op in ops]


def isolate(
    network: str,
    *,
    mode4: GatewayMode = "nat",
    mode6: GatewayMode = "nat",
    internal: bool = False,
    icc: bool = True,
    trusted: tuple[str, ...] = (),
) -> Isolate:
    return Isolate(bridge=f"br{network}", subnets=SUBNETS[network], mode4=mode4, mode6=mode6, internal=internal, icc=icc, trusted=trusted)


def masquerade(network: str) -> list[FirewallOp]:
    return [Masquerade(subnet=subnet, bridge=f"br{network}") for subnet in SUBNETS[network]]


def guard(name: str, *, antispoof: bool = False, icc: bool = True) -> Guard:
    """For the port of a container of the lab."""
    network = CONTAINERS[name]
    return Guard(
        link=f"v-{name}",
        bridge=f"br{network}",
        bridge_mac=MAC[network],
        mac=Lab.mac(name),
        addresses=(ADDRESS[name], ADDRESS6[name]),
        antispoof=antispoof,
        icc=icc,
    )


def published(host_port: int, address: str, port: int, host_ip: str = "", count: int = 1) -> list[FirewallOp]:
    """By TCP and UDP. `address` may be a container's name: then by IPv4 and IPv6 as well, `host_ip` being a name too."""
    if address in CONTAINERS:
        return [
            op for known in (ADDRESS, ADDRESS6) for op in published(host_port, known[address], port, known.get(host_ip, host_ip), count)
        ]
    return [Publish(protocol=protocol, host_port=host_port, address=address, port=port, host_ip=host_ip, count=count) for protocol in KINDS]


def direct(address: str, port: int, count: int = 1) -> list[FirewallOp]:
    if address in CONTAINERS:
        return [op for known in (ADDRESS, ADDRESS6) for op in direct(known[address], port, count)]
    return [Direct(protocol=protocol, address=address, port=port, count=count) for protocol in KINDS]
