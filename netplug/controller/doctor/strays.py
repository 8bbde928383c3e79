"""What carries our mark in the kernel and has no record: namespaces, links, routes, entries for peers; and sandboxes that are gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

from netplug.controller import handing
from netplug.controller.core import Core
from netplug.controller.doctor.difference import Difference, Remedy
from netplug.controller.doctor.kernel import KernelCheck
from netplug.controller.nouns import noun
from netplug.controller.restore import Restore
from netplug.kernel import contrasts, lan, namespaces, peers
from netplug.kernel.links import Link
from netplug.kernel.netlink import Message
from netplug.model import Network, Sandbox
from netplug.plan import HOST, Fdb, Neighbour, Plan, Route, inside, removal


class StrayCheck:
    """What there is too much of."""

    def __init__(self, core: Core, restore: Restore, kernel: KernelCheck, vanished: Callable[[str], Awaitable[bool]]) -> None:
        """`vanished`: takes back what a sandbox had whose namespace is gone."""
        self._core, self._restore, self._kernel, self._vanished = core, restore, kernel, vanished

    async def differences(self) -> list[Difference]:
        found = [self._of_dead(sandbox) for sandbox in self._kernel.look().dead()]
        found += [self._of_namespace(path) for path in self._restore.stray_namespaces()]
        found += [self._of_link(place, link) for place, link in self._links()]
        found += self._of_routes()
        for network in self._joined():
            found += await self._of_entries(network)
        return found

    def _of_dead(self, sandbox: Sandbox) -> Difference:
        async def take_back() -> None:
            await self._vanished(sandbox.id)

        return Difference(
            f"container {sandbox.name}",
            f"its network namespace {sandbox.namespace} is gone, or another one",
            "its addresses, names and ports are held for nobody",
            tuple(self._core.explain([removal(self._restore.sandbox_plan(sandbox))])),
            (f"sandbox {sandbox.id}", take_back),
        )

    def _of_namespace(self, path: Path) -> Difference:
        async def remove() -> None:
            if path in self._restore.stray_namespaces():
                namespaces.remove(str(path))

        return Difference(
            f"namespace {path.name}",
            f"{path} has no record",
            "no container of ours lives in it; what is in it is kept alive for nobody",
            (f"umount {path}", f"rm {path}"),
            (f"namespace {path}", remove),
        )

    def _links(self) -> list[tuple[str, Link]]:
        places = [self._core.place(network) for network in self._joined()]
        # An engine may be taking a link into its container just now.
        known = self._core.records.endpoints.values()
        names = {name for endpoint in known for name in (endpoint.host_interface, handing.passing(endpoint.id))}
        return contrasts.strays((wanted.plan for wanted in self._restore.wanted()), places, names)

    def _of_link(self, place: str, link: Link) -> Difference:
        async def delete() -> None:
            if (place, link.index) in [(where, one.index) for where, one in self._links()]:
                await self._core.executor.delete_strays(place, [link])

        return Difference(
            f"link {link.name}",
            f"{link.kind or 'link'} {link.name} carries our mark and has no record",
            "it is of no use, and its name and addresses may be in the way",
            (inside(place, f"ip link del {link.name}") if place else f"ip link del {link.name}",),
            (f"link {place} {link.name}", delete),
        )

    def _of_routes(self) -> Iterator[Difference]:
        for route in self._stray_routes():
            remedy: Remedy = partial(self._core.remove, "doctor", "routes", removal((route,)))
            yield Difference(
                "the host",
                f"{noun(route)} carries our mark and has no record",
                "packets to there go to a node that does not have that network any more",
                tuple(self._core.explain([removal((route,))])),
                (f"route {route.destination}", remedy),
            )

    def _stray_routes(self) -> list[Route]:
        plans: list[Plan] = [self._core.routes, *(wanted.plan for wanted in self._restore.wanted())]
        return lan.strays([step for plan in plans for step in plan if isinstance(step, Route) and step.namespace == HOST])

    def _joined(self) -> list[Network]:
        """Global networks that this host is on, and that are not being changed."""
        core = self._core
        known = [core.records.networks[identity] for identity in core.joined if identity in core.records.networks]
        return [network for network in known if not core.lock(network.id).locked()]

    async def _of_entries(self, network: Network) -> list[Difference]:
        place, stale = await self._stale(network)
        if not stale:
            return []

        async def remove() -> None:
            async with self._core.lock(network.id):
                where, found = await self._stale(network)
                if found:
                    peers.send(where, found)

        return [
            Difference(
                f"network {network.name}",
                f"{len(stale)} entries for peers that are not there",
                "packets to an address that has gone are sent to a node; nobody else is harmed",
                (
                    inside(place, f"bridge fdb show dev vx-{network.id:.12}"),
                    "# and for those that no endpoint has: bridge fdb del",
                ),
                (f"entries {network.id}", remove),
            )
        ]

    async def _stale(self, network: Network) -> tuple[str, list[list[Message]]]:
        plan, place = self._core.network_plan(network), self._core.place(network)
        wanted = [step for step in plan if isinstance(step, Fdb | Neighbour)]
        return place, await asyncio.to_thread(peers.find_stale, place, wanted)
