"""Who is called what, without a socket in sight: tables per network, views per set of networks.

A *table* holds the endpoints of one network and finds them by name and by address. A *view* is what sandboxes with the same networks
(and the same links) see; they share it, and with it one cache of prebuilt answers, so that a change costs the same for one sandbox
as for a thousand. The *directory* has all of both. Names are in wire form and lower case, addresses packed.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping
from itertools import cycle, repeat

from netplug.resolver import wire

VIEW_BUDGET = 2 * 1024 * 1024
"""Bytes of prebuilt answers a view keeps (A and AAAA of 2,000 names); then it forgets them all."""

TOTAL_BUDGET = 8 * 1024 * 1024
"""The same for all views together."""

_ENTRY_OVERHEAD = 350
"""What a cache entry costs beside its bytes: dict slot, object headers, iterator and its method."""


def pack_address(text: str) -> bytes:
    """4 or 16 bytes, `b""` for none. OSError if it is no address."""
    if not text:
        return b""
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


class Endpoint:
    """One endpoint's names and addresses in one network."""

    __slots__ = ("addresses", "names")

    def __init__(self, names: tuple[bytes, ...], addresses: tuple[bytes, ...]) -> None:
        self.names, self.addresses = names, addresses

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Endpoint) and (self.names, self.addresses) == (other.names, other.addresses)

    __hash__ = None  # type: ignore[assignment]


class Table:
    """The names of one network."""

    def __init__(self) -> None:
        self.suffix = b""
        self.endpoints: dict[str, Endpoint] = {}
        self.views: set[View] = set()
        self._by_name: dict[bytes, tuple[Endpoint, ...]] = {}
        self._by_address: dict[bytes, Endpoint] = {}

    def put(self, id: str, endpoint: Endpoint, suffix: bytes) -> None:
        """Know the endpoint by exactly these names; `suffix` is the network's name."""
        if self.endpoints.get(id) == endpoint and self.suffix == suffix:
            return
        self._forget(id)
        self.suffix = suffix
        self.endpoints[id] = endpoint
        for name in endpoint.names:
            self._by_name[name] = (*self._by_name.get(name, ()), endpoint)
        for address in endpoint.addresses:
            self._by_address[address] = endpoint
        self._changed()

    def drop(self, id: str) -> None:
        if self._forget(id):
            self._changed()

    def find(self, name: bytes) -> tuple[Endpoint, ...]:
        """The endpoints called `name`, or `name.network`."""
        found = self._by_name.get(name, ())
        if not found and self.suffix and name.endswith(self.suffix):
            return self._by_name.get(name[: -len(self.suffix)] + b"\0", ())
        return found

    def reverse(self, address: bytes) -> bytes:
        """`name.network` of whoever has the address, or `b""`."""
        endpoint = self._by_address.get(address)
        if endpoint is None or not endpoint.names:
            return b""
        name = endpoint.names[0][:-1] + (self.suffix or b"\0")
        return name if len(name) <= wire.NAME_LIMIT else b""

    def _forget(self, id: str) -> bool:
        endpoint = self.endpoints.pop(id, None)
        if endpoint is None:
            return False
        for name in endpoint.names:
            left = tuple(other for other in self._by_name[name] if other is not endpoint)
            if left:
                self._by_name[name] = left
            else:
                del self._by_name[name]
        for address in endpoint.addresses:
            # The address may have a new owner already: endpoints come before others go.
            if self._by_address.get(address) is endpoint:
                del self._by_address[address]
        return True

    def _changed(self) -> None:
        for view in self.views:
            view.forget()


class View:
    """What a sandbox sees: links first, then its networks in order."""

    def __init__(self, tables: tuple[Table, ...], extra: Mapping[bytes, bytes], budget: Budget) -> None:
        self.tables, self.extra, self._budget = tables, extra, budget
        self.users = 0
        self.cache: dict[bytes, Callable[[], bytes]] = {}
        """Query without its id -> what gives the next answer, without its id."""
        self._cached = 0
        for table in tables:
            table.views.add(self)

    def find(self, name: bytes, length: int) -> list[bytes] | None:
        """Addresses of that many bytes from the first place that has some; None if nobody is called so."""
        if name in self.extra:
            address = self.extra[name]
            return [address] if len(address) == length else []
        known = False
        for table in self.tables:
            if endpoints := table.find(name):
                known = True
                addresses = [address for endpoint in endpoints for address in endpoint.addresses if len(address) == length]
                if addresses:
                    return addresses
        return [] if known else None

    def reverse(self, address: bytes) -> bytes:
        """`name.network` in wire form, or `b""`."""
        return next((name for table in self.tables if (name := table.reverse(address))), b"")

    def remember(self, packet: bytes, answers: list[bytes]) -> None:
        """Give these answers, in turn, whenever these bytes come again."""
        size = _ENTRY_OVERHEAD + len(packet) + sum(map(len, answers))
        if self._cached + size > VIEW_BUDGET:
            self.forget()
        self._budget.take(self, size)
        self._cached += size
        # A cycle for each entry: with one counter for all, who asks for A and AAAA by turns would always get the same first address.
        turns = cycle([answer[2:] for answer in answers]) if len(answers) > 1 else repeat(answers[0][2:])
        self.cache[packet[2:]] = turns.__next__

    def forget(self) -> None:
        """Names have changed, or memory is used up: prebuilt answers are void."""
        self.cache.clear()
        self._budget.used -= self._cached
        self._cached = 0

    def close(self) -> None:
        self.forget()
        for table in self.tables:
            table.views.discard(self)


class Budget:
    """The memory that the caches of all views share."""

    def __init__(self, total: int = TOTAL_BUDGET) -> None:
        self.total, self.used = total, 0
        self.views: set[View] = set()

    def take(self, view: View, size: int) -> None:
        if self.used + size > self.total:
            for other in self.views:
                other.forget()
        self.used += size


class Directory:
    """All tables and views."""

    def __init__(self) -> None:
        self._budget = Budget()
        self._tables: dict[str, Table] = {}
        self._views: dict[tuple[object, ...], View] = {}

    def put(self, network: str, id: str, names: Iterable[str], addresses: Iterable[str], network_name: str) -> list[str]:
        """Know an endpoint. Names that DNS cannot hold are left out and returned."""
        endpoint, suffix, unusable = _packed(names, addresses, network_name)
        self._table(network).put(id, endpoint, suffix)
        return unusable

    def knows(self, network: str, id: str, names: Iterable[str], addresses: Iterable[str], network_name: str) -> bool:
        """Whether `put` with the same would change nothing."""
        endpoint, suffix, _ = _packed(names, addresses, network_name)
        table = self._tables.get(network)
        return table is not None and table.suffix == suffix and table.endpoints.get(id) == endpoint

    def known(self) -> set[tuple[str, str]]:
        """Every endpoint: (network, id)."""
        return {(network, id) for network, table in self._tables.items() for id in table.endpoints}

    def drop(self, network: str, id: str) -> None:
        if table := self._tables.get(network):
            table.drop(id)
            self._tidy([network])

    def keep_only(self, endpoints: set[tuple[str, str]]) -> None:
        """Drop every endpoint but these (network, id)."""
        for network, id in self.known() - endpoints:
            self.drop(network, id)

    def view(self, networks: Iterable[str], extra: Mapping[str, str]) -> View:
        """The view of these networks and links; `release` it after use."""
        networks = tuple(networks)
        key = (networks, tuple(sorted(extra.items())))
        view = self._views.get(key)
        if view is None:
            links = {keys[0]: pack_address(address) for name, address in extra.items() if (keys := _keys([name])[0])}
            view = View(tuple(self._table(network) for network in networks), links, self._budget)
            self._views[key] = view
            self._budget.views.add(view)
        view.users += 1
        return view

    def release(self, networks: Iterable[str], extra: Mapping[str, str]) -> None:
        """One user less; the last one closes the view."""
        networks = tuple(networks)
        key = (networks, tuple(sorted(extra.items())))
        view = self._views[key]
        view.users -= 1
        if not view.users:
            view.close()
            del self._views[key]
            self._budget.views.discard(view)
            self._tidy(networks)

    def _table(self, network: str) -> Table:
        return self._tables.setdefault(network, Table())

    def _tidy(self, networks: Iterable[str]) -> None:
        for network in networks:
            table = self._tables.get(network)
            if table and not table.endpoints and not table.views:
                del self._tables[network]


def _packed(names: Iterable[str], addresses: Iterable[str], network_name: str) -> tuple[Endpoint, bytes, list[str]]:
    """The endpoint, its network's suffix, and the names that DNS cannot hold."""
    keys, unusable = _keys(names)
    suffix, no_suffix = _keys([network_name] if network_name else [])
    endpoint = Endpoint(tuple(keys), tuple(packed for text in addresses if (packed := pack_address(text))))
    return endpoint, suffix[0] if suffix else b"", unusable + no_suffix


def _keys(names: Iterable[str]) -> tuple[list[bytes], list[str]]:
    """Each name once in wire form and lower case, in order; and those that DNS cannot hold."""
    keys: dict[bytes, None] = {}
    unusable = []
    for name in names:
        try:
            keys[wire.encode_name(name).lower()] = None
        except ValueError:
            unusable.append(name)
    return list(keys), unusable
