"""What a user may ask for as a pool; the sentences are Docker's (command and daemon)."""

from __future__ import annotations

from msgspec.structs import replace

from netplug.errors import AddressInUse, Forbidden, InvalidArgument
from netplug.model import PoolConfig

from .allocator import PoolAllocator
from .block import Block, parse_address, parse_block

UNUSABLE = tuple(map(parse_block, ("127.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32", "::/127", "ff00::/8")))
MAPPED = parse_block("::ffff:0:0/96")
LINK_LOCAL = parse_block("fe80::/64")


def canonical(wanted: PoolConfig) -> PoolConfig:
    """The same pool in canonical text; InvalidArgument if its parts do not fit together."""
    subnet = _exact("subnet", wanted.subnet)
    if any(subnet.overlaps(block) for block in UNUSABLE):
        raise InvalidArgument(f"invalid subnet {subnet}: it holds loopback or multicast addresses, which no container can have")
    if subnet.overlaps(MAPPED):
        raise InvalidArgument(f"'{subnet}' is not a valid IPv6 subnet")
    if subnet != LINK_LOCAL and subnet.overlaps(LINK_LOCAL):
        # Linux gives every interface an address in it by itself: two kinds of them with different prefixes would only confuse.
        raise InvalidArgument(f"'{subnet}' clashes with the Link-Local prefix '{LINK_LOCAL}'")
    return PoolConfig(
        subnet=str(subnet),
        ip_range=_range(subnet, wanted.ip_range),
        gateway=_member(subnet, "gateway", wanted.gateway),
        auxiliary={name: _member(subnet, "aux-address", address) for name, address in wanted.auxiliary.items()},
    )


def require_nothing_else(wanted: PoolConfig) -> None:
    """A pool whose subnet we choose can have no parts of the user's choice."""
    for address in wanted.auxiliary.values():
        raise InvalidArgument(f"no matching subnet for aux-address {address}")
    if wanted.ip_range or wanted.gateway:
        raise InvalidArgument("every ip-range or gateway must have a corresponding subnet")


def with_gateway(pool: PoolConfig, *, choose: bool = True) -> PoolConfig:
    """Check that gateway and auxiliary addresses can be had; without a gateway, with `choose`, the first address becomes it.

    With an ip-range that is the range's first address. The gateway goes first, and what is its address cannot be auxiliary: it would
    move to another one that nobody expects. All as in Docker 20.10.
    """
    allocator = PoolAllocator(replace(pool, gateway="", auxiliary={}))
    if pool.gateway:
        _claim(allocator, pool.gateway, f"gateway ({pool.gateway})")
    elif choose:
        pool = replace(pool, gateway=allocator.allocate())
    for name, address in pool.auxiliary.items():
        _claim(allocator, address, f"secondary ip address ({name}:{address})")
    return pool


def _claim(allocator: PoolAllocator, address: str, what: str) -> None:
    try:
        allocator.allocate(address)
    except AddressInUse:
        raise Forbidden(f"failed to allocate {what}: Address already in use") from None


def _exact(what: str, text: str) -> Block:
    """A block given without host bits: who writes 10.0.0.1/24 may mean an address, and should say which."""
    block = parse_block(text)
    if parse_address(text.partition("/")[0]) != (block.family, block.first):
        raise InvalidArgument(f"invalid network config: invalid {what} {text}: it should be {block}")
    return block


def _range(subnet: Block, text: str) -> str:
    if not text:
        return ""
    if not subnet.covers(parse_block(text)):
        raise InvalidArgument(f"no matching subnet for range {text}")
    return str(_exact("ip-range", text))


def _member(subnet: Block, what: str, text: str) -> str:
    """The address in canonical form, if it lies in the subnet."""
    if not text:
        return ""
    try:
        offset = subnet.offset(text)
    except InvalidArgument:
        offset = None
    if offset is None:
        raise InvalidArgument(f"no matching subnet for {what} {text}")
    return subnet.address(offset)
