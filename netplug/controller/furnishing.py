"""What an engine's container gets of us beside its links: the way to our resolver, which asks the engine's own what it does not know."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable
from functools import partial
from typing import Any, TypeAlias

import msgspec

from netplug.controller import names
from netplug.controller.core import Core, log
from netplug.controller.joining import with_resolver
from netplug.controller.names import needs_resolver, open_resolver_sockets
from netplug.kernel import sockets
from netplug.model import DnsConfig, Network, Sandbox
from netplug.shelter import Shelter

RESOLVER = "127.0.0.11"
Sockets: TypeAlias = tuple[socket.socket, socket.socket]


class Furnishing:
    """Of sandboxes in which an engine has taken links in, or has had them put."""

    def __init__(self, core: Core, changes: Shelter) -> None:
        """`changes`: where what goes on behind an answer comes to its end."""
        self._core, self._changes = core, changes

    def opened(self, sandbox: Sandbox, network: Network) -> tuple[Sandbox, Sockets | None]:
        """With a resolver, if the network has one and the sandbox not yet; and the resolver's sockets, open in it."""
        if not needs_resolver(self._core, network) or sandbox.resolver_udp:
            return sandbox, None
        sandbox = with_resolver(msgspec.structs.replace(sandbox, dns=engines_resolver(sandbox)))
        return sandbox, open_resolver_sockets(sandbox)

    async def furnish(self, sandbox: Sandbox, applying: Awaitable[object], sockets: Sockets | None) -> None:
        """Carry out a plan in the container, with what leads to its names: `sockets`, where the resolver is new there."""
        if sockets is None:
            self._tell(sandbox)
            await applying
            return
        try:
            await applying
        except BaseException:
            for one in sockets:
                one.close()
            raise
        await names.hand_over(self._core, sandbox, sockets)

    def _tell(self, sandbox: Sandbox) -> None:
        """The resolver hears which networks the sandbox is on.

        Nobody waits for it: no question that is asked from now on comes to it before this. One that knows too much is told again when its
        sandbox is.
        """
        if sandbox.resolver_udp:
            telling = names.tell(self._core.resolver.update_sandbox(names.sandbox_names(self._core, sandbox)))
            self._changes.start(telling).add_done_callback(partial(log_failure, f"names of {sandbox.name}"))


def log_failure(what: str, work: asyncio.Task[Any]) -> None:
    """Of work that nobody waits for."""
    if not work.cancelled() and (error := work.exception()) is not None:
        log.error("%s: %s", what, error)


def engines_resolver(sandbox: Sandbox) -> DnsConfig:
    """Where the engine's own resolver listens in its container: `127.0.0.11#UDP/TCP`, the two ports; no server where there is none."""
    udp, tcp = (
        next((port for port in sockets.ports_at(sandbox.namespace, protocol, RESOLVER) if port != own), 0)
        for protocol, own in (("udp", sandbox.resolver_udp), ("tcp", sandbox.resolver_tcp))
    )
    return DnsConfig(servers=(f"{RESOLVER}#{udp or tcp}/{tcp or udp}",) if udp or tcp else ())
