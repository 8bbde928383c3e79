"""Pools and addresses of Docker v1 IPAM plugins: the plugin lends them, and what is recorded is what it has answered.

Protocol: "IPAM Driver" of libnetwork. A plugin keeps what it has lent over its own restarts. An allocator here only notes what has been
lent, so that an address which a plugin gives twice is not had twice.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

import msgspec

from netplug.addressing import AddressPools
from netplug.errors import InvalidArgument, NetplugError, PoolOverlap
from netplug.model import Family, PoolConfig
from netplug.plugins import places
from netplug.plugins.calls import Plugin, Unsupported

from .allocator import PoolAllocator
from .block import parse_block
from .requests import canonical

ROLE = "IpamDriver"
REQUEST = "netplug.request"
"""An option that netplug itself understands: who asks by the same word gets the same."""
_GATEWAY = "com.docker.network.gateway"
_ADDRESS_TYPE = "RequestAddressType"
_MAC = "com.docker.network.endpoint.macaddress"


class Capability(msgspec.Struct):
    RequiresMACAddress: bool | None = None


class Spaces(msgspec.Struct):
    LocalDefaultAddressSpace: str | None = None


class LentPool(msgspec.Struct):
    PoolID: str = ""
    Pool: str = ""
    Data: dict[str, str] | None = None


class LentAddress(msgspec.Struct):
    Address: str = ""


class Nothing(msgspec.Struct):
    """Whatever it says is not looked at."""


class Plugins:
    """The finder: every plugin that is there may be an IPAM driver; whether it is one it says when it is asked."""

    noun = "plugins"

    def __init__(self, pools: AddressPools) -> None:
        """The predefined pools are not for them."""

    def names(self) -> list[str]:
        return places.names()

    def ipam(self, name: str) -> Remote:
        return Remote(name)


class Remote:
    """The IPAM driver that one plugin is."""

    def __init__(self, name: str) -> None:
        self._plugin = Plugin(name, ROLE)
        self._needs_mac: bool | None = None

    def request_pool(
        self,
        wanted: PoolConfig | None,
        taken: Iterable[str],
        options: dict[str, str],
        scope: str = "local",
        *,
        family: Family = 4,
        gateway: bool = True,
    ) -> PoolConfig:
        """One that has been lent, or that the user would have lent, looked at."""
        if wanted is None or not wanted.subnet:
            raise InvalidArgument(f'plugin "{self._plugin.name}" chooses a subnet only when the network is made: give one with --subnet')
        pool = canonical(wanted)
        subnet = parse_block(pool.subnet)
        if any(subnet.overlaps(parse_block(cidr)) for cidr in taken):
            raise PoolOverlap("Pool overlaps with other one on this address space")
        return msgspec.structs.replace(pool, handle=wanted.handle)

    def allocator(self, pool: PoolConfig) -> PoolAllocator:
        return PoolAllocator(pool)

    # What is asked of the plugin

    async def lend_pool(self, wanted: PoolConfig, options: dict[str, str], family: Family, request: str) -> PoolConfig:
        spaces = await self._call("GetDefaultAddressSpaces", {}, Spaces)
        body = {
            "AddressSpace": spaces.LocalDefaultAddressSpace or "",
            "Pool": wanted.subnet,
            "SubPool": wanted.ip_range,
            "Options": {**options, **await self._word(request)},
            "V6": family == 6,
        }
        lent = await self._call("RequestPool", body, LentPool)
        try:
            subnet = ipaddress.ip_network(lent.Pool)
            given = (lent.Data or {}).get(_GATEWAY, "")
            gateway = str(ipaddress.ip_interface(given).ip) if given and not wanted.gateway else wanted.gateway
        except ValueError as error:
            raise self._senseless("RequestPool", str(error)) from None
        if not lent.PoolID or subnet.version != family or wanted.subnet not in ("", str(subnet)):
            asked = wanted.subnet or f"one of IPv{family}"
            raise self._senseless("RequestPool", f"pool {lent.PoolID!r:.40} with subnet {subnet} for {asked}")
        return msgspec.structs.replace(wanted, subnet=str(subnet), gateway=gateway, handle=lent.PoolID)

    async def lend_gateway(self, pool: PoolConfig, wanted: str, request: str) -> str:
        return await self._lend(pool, wanted, {_ADDRESS_TYPE: _GATEWAY}, request)

    async def lend(self, pool: PoolConfig, wanted: str, mac: str, request: str) -> str:
        address = await self._lend(pool, wanted, {_MAC: mac} if mac else {}, request)
        if not address:
            raise self._senseless("RequestAddress", "no address")
        return address

    async def needs_mac(self) -> bool:
        if self._needs_mac is None:
            try:
                self._needs_mac = bool((await self._call("GetCapabilities", {}, Capability)).RequiresMACAddress)
            except Unsupported:
                self._needs_mac = False
        return self._needs_mac

    async def take_back(self, pool: PoolConfig, address: str) -> None:
        await self._call("ReleaseAddress", {"PoolID": pool.handle, "Address": address}, Nothing)

    async def take_back_pool(self, pool: PoolConfig) -> None:
        await self._call("ReleasePool", {"PoolID": pool.handle}, Nothing)

    async def recalls(self) -> bool:
        return await self._plugin.is_netplug()

    async def _lend(self, pool: PoolConfig, wanted: str, options: dict[str, str], request: str) -> str:
        body = {"PoolID": pool.handle, "Address": wanted, "Options": {**options, **await self._word(request)}}
        lent = await self._call("RequestAddress", body, LentAddress)
        if not lent.Address:
            return ""
        try:
            address = ipaddress.ip_interface(lent.Address).ip
        except ValueError as error:
            raise self._senseless("RequestAddress", str(error)) from None
        if address not in ipaddress.ip_network(pool.subnet) or (wanted and str(address) != wanted):
            raise self._senseless("RequestAddress", f"{address} for {wanted or f'one of {pool.subnet}'}")
        return str(address)

    async def _word(self, request: str) -> dict[str, str]:
        return {REQUEST: request} if request and await self.recalls() else {}

    async def _call(self, method: str, body: dict[str, Any], answer: Any) -> Any:
        return await self._plugin.call(method, body, answer)

    def _senseless(self, method: str, what: str) -> NetplugError:
        return NetplugError(f'plugin "{self._plugin.name}" answered {ROLE}.{method} with what cannot be done: {what}')
