"""Pools and addresses that an engine's IPAM asks us for, before there is the network or the endpoint that will have them.

A pool is held from the moment it is handed out, so that no other network gets it; networks come to be of such pools. An address is held
until the engine gives it back, whatever becomes of the endpoint that has it. Both outlive the daemon: `leased-pools/<id>` and
`leased-addresses/<pool>/<address>` in this host's store.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Collection, Iterable

import msgspec

from netplug.addressing import Allocator, Ipams
from netplug.errors import AddressInUse, InvalidArgument, NetplugError, NotFound, PoolOverlap
from netplug.model import Family, Network, PoolConfig, Record, encode, new_id
from netplug.store import PREFIX, Delete, Put, Store, Write

log = logging.getLogger(__name__)

_POOLS = f"{PREFIX}leased-pools/"
_ADDRESSES = f"{PREFIX}leased-addresses/"


class LeasedPool(Record, frozen=True, kw_only=True):
    """`network`: the id of the network that has it now; `shared`: which had it before; `released`: it goes with that network.

    An engine gives the pool of a network back before it removes the network, which may not go.
    """

    id: str
    subnet: str
    ip_range: str = ""
    gateway: str = ""
    network: str = ""
    shared: bool = False
    released: bool = False
    word: str = ""
    """By which it was asked for, if by any."""

    @property
    def prefix(self) -> str:
        return self.subnet.rpartition("/")[2]


class Leases:
    """In memory as in the store."""

    def __init__(self, store: Store, ipams: Ipams, host_subnets: Callable[[], Iterable[str]]) -> None:
        """`host_subnets`: what a pool that nobody has named keeps clear of."""
        self._store, self._ipams, self._host_subnets = store, ipams, host_subnets
        self.pools: dict[str, LeasedPool] = {}
        self._addresses: dict[str, dict[str, str]] = {}
        """By pool: addresses, and the word by which each was asked for."""
        self._allocators: dict[str, Allocator] = {}
        """Of pools that no network has yet."""
        self._writing: dict[str, asyncio.Task[None]] = {}
        """By key: addresses that the store is being told of."""
        self._changing = asyncio.Lock()
        """A network and its pools end at once, where another netplug tells of both."""

    async def load(self) -> None:
        for item in (await self._store.range(_POOLS))[1]:
            self._add(msgspec.json.decode(item.value, type=LeasedPool))
        for item in (await self._store.range(_ADDRESSES))[1]:
            pool, _, address = item.key.removeprefix(_ADDRESSES).partition("/")
            if pool in self.pools:
                self._note(pool, address, item.value.decode())

    def unused(self, beside: Collection[str] = ()) -> list[str]:
        """Subnets that no network has yet, but for those of pools with these ids."""
        return [pool.subnet for pool in self.pools.values() if not pool.network and pool.id not in beside]

    def holds(self, network: str, address: str) -> bool:
        """Whether the address (without prefix) has been handed out in one of the network's pools."""
        return any(address in self._addresses[pool.id] for pool in self.pools.values() if pool.network == network)

    def addresses(self, identity: str) -> frozenset[str]:
        """Those of that pool that have been handed out."""
        return frozenset(self._addresses.get(identity, ()))

    def of(self, network: str) -> list[str]:
        """All addresses that have been handed out in the network's pools."""
        return [address for pool in self.pools.values() if pool.network == network for address in self._addresses[pool.id]]

    def pool(self, identity: str) -> LeasedPool:
        found = self.pools.get(identity)
        if found is None:
            raise NotFound(f"address pool {identity:.12} not found: it was not handed out here, or was given back")
        return found

    async def request_pool(self, wanted: PoolConfig | None, family: Family, networks: Iterable[Network], word: str = "") -> LeasedPool:
        """A pool as asked for, or one that is free here. That of a network, asked for exactly, is shared with it.

        `word`: whoever asks by the same one gets the same.
        """
        networks = list(networks)
        if word and (known := next((pool for pool in self.pools.values() if pool.word == word), None)) is not None:
            return known
        if wanted is not None and (sharing := _sharing(wanted, networks)):
            pool = sharing
        else:
            taken = [*self.unused(), *(pool.subnet for network in networks for pool in network.pools)]
            taken += [] if wanted is not None else self._host_subnets()
            config = self._ipams.get("default").request_pool(wanted, taken, {}, "local", family=family)
            pool = LeasedPool(id=new_id(), subnet=config.subnet, ip_range=config.ip_range, gateway=config.gateway)
        pool = msgspec.structs.replace(pool, word=word)
        await self._store.txn((), [Put(_POOLS + pool.id, encode(pool))], durable=True)
        self._add(pool)
        return pool

    async def release_pool(self, identity: str) -> None:
        """Fine if it is gone."""
        async with self._changing:
            pool = self.pools.get(identity)
            if pool is None:
                return
            if pool.network and not pool.shared:
                await self._change([msgspec.structs.replace(pool, released=True)])
                return
            await self._forget(identity)

    async def _forget(self, identity: str) -> None:
        await self.settle()
        writes: list[Write] = [Delete(_POOLS + identity)]
        writes += [Delete(f"{_ADDRESSES}{identity}/{address}") for address in self._addresses[identity]]
        for start in range(0, len(writes), 100):
            await self._store.txn((), writes[start : start + 100])
        self.pools.pop(identity, None)
        self._addresses.pop(identity, None)
        self._allocators.pop(identity, None)

    async def bind(self, identities: Collection[str], network: str) -> None:
        """A network has come to be of these pools."""
        async with self._changing:
            await self._change([msgspec.structs.replace(self.pool(identity), network=network) for identity in identities])
        for identity in identities:
            self._allocators.pop(identity, None)

    async def unbind(self, network: str) -> None:
        """The network is gone, and with it the pools that the engine has given back."""
        async with self._changing:
            own = [pool for pool in self.pools.values() if pool.network == network]
            if not own:
                return
            await self._change([msgspec.structs.replace(pool, network="") for pool in own if not pool.released])
            for pool in own:
                if pool.released:
                    await self._forget(pool.id)

    async def agree(self, networks: Collection[str]) -> None:
        """These are all networks that there are: an earlier daemon may have died between a network's end and its pools'."""
        for network in {pool.network for pool in self.pools.values() if pool.network} - set(networks):
            await self.unbind(network)

    def request_address(
        self,
        identity: str,
        wanted: str,
        allocators: Iterable[tuple[PoolConfig, Allocator]],
        elsewhere: Collection[str] = (),
        word: str = "",
    ) -> str:
        """`wanted`, or one that is free, with its prefix. `allocators`: of the network that has the pool, if one has.

        `elsewhere`: addresses that other nodes have, also where this one has not heard of it. `word`: whoever asks by the same one gets
        the same.
        """
        pool = self.pool(identity)
        for address, known in self._addresses[identity].items():
            if word and known == word:
                return f"{address}/{pool.prefix}"
        address = _free(self._allocator(pool, allocators), _checked(wanted), elsewhere)
        self._put(pool, address, word)
        return f"{address}/{pool.prefix}"

    def hold(self, network: str, subnet: str, address: str) -> None:
        """One that was handed out, though a daemon died before the store had it; the caller has taken it.

        Fine if none of the network's pools is of that subnet.
        """
        for pool in self.pools.values():
            if pool.network == network and pool.subnet == subnet:
                self._put(pool, address, "")
                return

    async def request_gateway(self, identity: str, wanted: str) -> str:
        """The gateway that the pool has; one that no network has yet takes the one that is wanted."""
        pool, wanted = self.pool(identity), _checked(wanted)
        if pool.network and wanted not in ("", pool.gateway):
            raise InvalidArgument(f"gateway {wanted}: the network of {pool.subnet} is there, and its gateway is {pool.gateway or 'none'}")
        if wanted and wanted != pool.gateway:
            if ipaddress.ip_address(wanted) not in ipaddress.ip_network(pool.subnet):
                raise InvalidArgument(f"gateway {wanted} is not in {pool.subnet}")
            async with self._changing:
                pool = msgspec.structs.replace(self.pool(identity), gateway=wanted)
                await self._change([pool])
            self._allocators.pop(pool.id, None)
        return f"{pool.gateway}/{pool.prefix}" if pool.gateway else ""

    async def release_address(self, identity: str, address: str) -> bool:
        """Whether it was handed out; the gateway is its pool's."""
        address = _checked(address)
        if identity not in self.pools or address not in self._addresses[identity]:
            return False
        key = f"{_ADDRESSES}{identity}/{address}"
        if key in self._writing:
            await asyncio.gather(self._writing[key], return_exceptions=True)
        await self._store.txn((), [Delete(key)])
        self._addresses[identity].pop(address, None)
        if identity in self._allocators:
            self._allocators[identity].release(address)
        return True

    def _allocator(self, pool: LeasedPool, allocators: Iterable[tuple[PoolConfig, Allocator]]) -> Allocator:
        if pool.network:
            for config, allocator in allocators:
                if config.subnet == pool.subnet:
                    return allocator
            raise NotFound(f"address pool {pool.id:.12} ({pool.subnet}): its network is gone")
        if pool.id not in self._allocators:
            config = PoolConfig(subnet=pool.subnet, ip_range=pool.ip_range, gateway=pool.gateway)
            allocator = self._allocators[pool.id] = self._ipams.get("default").allocator(config)
            for address in self._addresses[pool.id]:
                allocator.take(address)
        return self._allocators[pool.id]

    def _put(self, pool: LeasedPool, address: str, word: str) -> None:
        """Nobody waits for the store: what is lost with a daemon that dies now is free for the endpoint that asks for it (`hold`)."""
        self._note(pool.id, address, word)
        key = f"{_ADDRESSES}{pool.id}/{address}"
        task = asyncio.get_running_loop().create_task(self._written(key, word))
        self._writing[key] = task
        task.add_done_callback(lambda _: self._writing.pop(key, None))

    async def _written(self, key: str, word: str) -> None:
        try:
            await self._store.txn((), [Put(key, word.encode())])
        except NetplugError as error:
            log.error("%s: held until the daemon ends, for the store cannot note it: %s", key.removeprefix(_ADDRESSES), error)

    async def settle(self) -> None:
        """Once the store has all."""
        while self._writing:
            await asyncio.gather(*self._writing.values(), return_exceptions=True)

    async def _change(self, pools: Collection[LeasedPool]) -> None:
        await self._store.txn((), [Put(_POOLS + pool.id, encode(pool)) for pool in pools])
        self.pools |= {pool.id: pool for pool in pools}

    def _add(self, pool: LeasedPool) -> None:
        self.pools[pool.id] = pool
        self._addresses.setdefault(pool.id, {})

    def _note(self, pool: str, address: str, word: str = "") -> None:
        self._addresses[pool][address] = word


def _free(allocator: Allocator, wanted: str, elsewhere: Collection[str]) -> str:
    passed: list[str] = []
    try:
        while (address := allocator.allocate(wanted)) in elsewhere:
            passed.append(address)
            if wanted:
                raise AddressInUse(wanted, "a container on another node")
        return address
    finally:
        for one in passed:
            allocator.release(one)


def _sharing(wanted: PoolConfig, networks: Iterable[Network]) -> LeasedPool | None:
    """The pool of the network whose subnet is just that one."""
    for network in networks:
        for pool in network.pools:
            if pool.subnet == wanted.subnet:
                if wanted.ip_range not in ("", pool.ip_range):
                    raise PoolOverlap(f"subnet {pool.subnet} is network {network.name}'s: its ip-range is {pool.ip_range or 'all of it'}")
                return LeasedPool(
                    id=new_id(), subnet=pool.subnet, ip_range=pool.ip_range, gateway=pool.gateway, network=network.id, shared=True
                )
    return None


def _checked(text: str) -> str:
    """In canonical form; `""` stays."""
    try:
        return str(ipaddress.ip_address(text)) if text else ""
    except ValueError:
        raise InvalidArgument(f"invalid address: {text!r:.60}") from None
