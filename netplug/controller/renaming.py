"""Names that come later: an engine's networks and containers are here before anybody says what they are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

import msgspec

from netplug.controller import exits, names
from netplug.controller.core import Core, log
from netplug.controller.furnishing import engines_resolver
from netplug.controller.joining import redirection
from netplug.controller.names import endpoint_names
from netplug.controller.networks import PREDEFINED, check_name
from netplug.controller.peers import Peers
from netplug.controller.records import put_sandbox, renamed_endpoint, renamed_network
from netplug.controller.requests import ControllerEvent
from netplug.errors import NetplugError, Unavailable
from netplug.kernel import namespaces
from netplug.model import Endpoint, Network, Sandbox
from netplug.store import Lost, Store


class Renaming:
    """Whoever has a name keeps it: what cannot be called so stays as it is, and the log says so, once."""

    def __init__(self, core: Core, peers: Peers) -> None:
        self._core, self._peers = core, peers
        self._refused: set[tuple[str, str]] = set()

    async def network(self, identity: str, name: str) -> None:
        """Fine if it is gone, or called so already."""
        core = self._core
        async with core.lock("networks"), core.lock(identity):
            network = core.records.networks.get(identity)
            if network is None or network.name == name:
                return
            if wrong := self._wrong(name):
                self._refuse(identity, f"network {network.name} keeps that name: {wrong}")
                return
            if core.records.network_named(name) is not None:
                self._refuse(identity, f"network {network.name} cannot be called {name}: there is a network of that name")
                return
            renamed = msgspec.structs.replace(network, name=name)
            if network.scope == "global" and core.cluster is not None and not await self._written(core.cluster.store, network, renamed):
                return
            if not await self._written(core.store, network, renamed):
                return
            core.records.drop_name(network)
            core.records.add_network(renamed)
            await self._tell_network(renamed)
        core.events.send(ControllerEvent(kind="network", action="update", network=renamed))

    def _wrong(self, name: str) -> str:
        """Why no network of an engine's can be called so; `""`: one can."""
        if name in (*PREDEFINED, exits.GATEWAY):
            return f"{name} is a network of netplug's own"
        try:
            check_name(self._core.records, name)
        except NetplugError as error:
            return str(error)
        return ""

    async def heard(self, network: Network) -> None:
        """Another node has given the network of this id that name."""
        core = self._core
        async with core.lock(network.id):
            known = core.records.networks.get(network.id)
            if known is not None and known.name != network.name:
                core.records.drop_name(known)
                core.records.add_network(network)
                await self._tell_network(network)

    async def container(self, sandbox: str, container: str, name: str, aliases: Mapping[str, Sequence[str]]) -> None:
        """What an engine calls a container, and by endpoint, by what other names it is to be found there."""
        core = self._core
        async with core.lock(sandbox):
            known = core.records.sandboxes.get(sandbox)
            if known is None:
                return
            if (known.container, known.name) != (container, name):
                known = msgspec.structs.replace(known, container=container, name=name, hostname=container[:12])
                await core.store.txn((), [put_sandbox(known)])
                core.records.add_sandbox(known)
            for endpoint in core.records.of_sandbox(sandbox):
                await self._endpoint(endpoint, known, tuple(aliases.get(endpoint.id, ())))
            if not known.dns.servers:  # the engine's own resolver stays where it was seen, until the engine starts anew
                await self._resolver(sandbox)

    async def resolvers(self, engine: str) -> None:
        """That engine may have started anew: its own resolver listens elsewhere in containers that have outlived it."""
        core = self._core
        for sandbox in list(core.records.sandboxes.values()):
            if sandbox.engine == engine:
                async with core.lock(sandbox.id):
                    await self._resolver(sandbox.id)

    async def _resolver(self, identity: str) -> None:
        """Where the engine's own listens in that container by now; and ours is asked first, also where the engine has come last.

        A container of the default bridge gets one only with its first other network, once we have answered to that.
        """
        core, known = self._core, self._core.records.sandboxes.get(identity)
        if known is None or not known.resolver_udp or namespaces.cookie(known.namespace) != known.cookie:
            return
        await core.apply("network connect", known.name, redirection(known))
        if (dns := engines_resolver(known)) == known.dns:
            return
        known = msgspec.structs.replace(known, dns=dns)
        await core.store.txn((), [put_sandbox(known)])
        core.records.add_sandbox(known)
        await names.tell(core.resolver.update_sandbox(names.sandbox_names(core, known)))

    async def _endpoint(self, endpoint: Endpoint, sandbox: Sandbox, aliases: tuple[str, ...]) -> None:
        core, network = self._core, self._core.records.networks[endpoint.network]
        async with core.lock(endpoint.network):
            if (endpoint := core.records.endpoints.get(endpoint.id, endpoint)).sandbox != sandbox.id:
                return
            taken = endpoint.container_name != sandbox.name and core.records.has_container(network.id, sandbox.name)
            if taken:
                self._refuse(endpoint.id, f"{sandbox.name} of {sandbox.engine}: another container on {network.name} has that name")
            own = endpoint.container_name if taken else sandbox.name
            known_as = tuple(dict.fromkeys((own, sandbox.container[:12], *aliases)))
            known_as = tuple(name for name in known_as if not (taken and name == sandbox.name))
            named = msgspec.structs.replace(endpoint, container_name=own, names=known_as, aliases=tuple(aliases))
            if named == endpoint:
                return
            if endpoint.node and core.cluster is not None and not await self._written(core.cluster.store, endpoint, named):
                return
            if not await self._written(core.store, endpoint, named):
                return
            core.records.drop_endpoint(endpoint)
            core.records.add_endpoint(named)
            if (known := endpoint_names(core, named)) is not None:
                await names.tell(core.resolver.put(known))

    async def _written(self, store: Store, before: Network | Endpoint, after: Network | Endpoint) -> bool:
        """False where somebody has the name, or nobody can say."""
        what = renamed_network if isinstance(before, Network) else renamed_endpoint
        compares, writes = what(before, after)  # type: ignore[arg-type]
        try:
            await store.txn(compares, writes)
        except Lost:
            name = after.name if isinstance(after, Network) else after.container_name
            self._refuse(after.id, f"{name}: another has that name")
            return False
        except Unavailable as error:
            log.warning("names follow when the cluster is back: %s", error)
            return False
        return True

    async def _tell_network(self, network: Network) -> None:
        """Each of its names is one with the network's behind it, too."""
        core = self._core
        for endpoint in core.records.of_network(network.id):
            if (known := endpoint_names(core, endpoint)) is not None:
                await names.tell(core.resolver.put(known))
        with suppress(KeyError):
            await self._peers.tell_again(network.id)

    def _refuse(self, identity: str, sentence: str) -> None:
        if (identity, sentence) not in self._refused:
            self._refused.add((identity, sentence))
            log.warning("%s", sentence)
