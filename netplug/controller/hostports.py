"""Host ports: chosen, and held by bound sockets for as long as they are published.

A held port is bound and does not listen, save where the forwarder is to answer: connections are redirected before they reach it, and nobody
else on the host can take the number. Where a port is held on every IPv4 and IPv6 address, one socket does for both.
"""

from __future__ import annotations

import _socket
import errno
import os
import resource
import socket
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from netplug.controller.ephemeral import Ephemeral
from netplug.controller.mappings import ANY, Mapping, exclude, family
from netplug.errors import InvalidArgument, NetplugError, PortTaken
from netplug.kernel import sockets
from netplug.kernel.descriptors import FD_SETSIZE, lifted
from netplug.model import PortBinding

HeldSocket: TypeAlias = _socket.socket
"""Without the methods that Python adds, of which ten thousand sockets need none: a third of the time."""

RESERVE = 512
"""Descriptors that ports leave to everything else that the daemon does."""

_KINDS = {"tcp": (socket.SOCK_STREAM, 0), "udp": (socket.SOCK_DGRAM, 0), "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP)}
_BOTH = tuple(ANY.values())
_SHARING = socket.SOL_SOCKET, socket.SO_REUSEADDR


@dataclass(slots=True, eq=False)
class Block:
    """Ports in a row, held on `addresses` by one socket each."""

    protocol: str
    addresses: tuple[str, ...]
    port: int
    sockets: list[HeldSocket]

    @property
    def count(self) -> int:
        return len(self.sockets)

    def holds(self, protocol: str, address: str, port: int, count: int) -> bool:
        return (self.protocol, self.port, self.count) == (protocol, port, count) and address in self.addresses

    def excludes(self, protocol: str, address: str, port: int) -> bool:
        """Whether nobody else can have that port because of this one."""
        return self.protocol == protocol and 0 <= port - self.port < self.count and any(exclude(own, address) for own in self.addresses)

    def in_the_way(self, protocol: str, addresses: Sequence[str], ports: range) -> Iterator[tuple[int, HeldSocket]]:
        """Of these ports those that cannot be had on these addresses because of this, each with what holds it."""
        if self.protocol == protocol and any(exclude(own, address) for own in self.addresses for address in addresses):
            for port in range(max(ports.start, self.port), min(ports.stop, self.port + self.count)):
                yield port, self.sockets[port - self.port]

    def close(self) -> None:
        for held in self.sockets:
            held.close()


class HostPorts:
    """The ports held for each sandbox."""

    def __init__(self) -> None:
        self._held: dict[str, list[Block]] = defaultdict(list)
        self._names: dict[str, str] = {}
        self._adopted: list[Block] = []
        self._ephemeral = Ephemeral()

    def hold(self, sandbox: str, name: str, mappings: Sequence[Mapping]) -> list[int]:
        """Take what each mapping wants and does not have, all or nothing; the number of each (0: it takes none).

        PortTaken names who has a port; InvalidArgument says that a host address is not this host's, or that the kernel lacks the protocol.
        """
        attempt = _Attempt(self, sandbox, name)
        numbers = [0] * len(mappings)
        try:
            for index in sorted(range(len(mappings)), key=lambda index: _openness(mappings[index].asked)):
                numbers[index] = attempt.choose(mappings[index])
        except BaseException:
            attempt.undo()
            raise
        self._held[sandbox] += attempt.new
        self._names[sandbox] = name
        return numbers

    def keep(self, sandbox: str, bindings: Iterable[PortBinding]) -> None:
        """Let go of whatever is held for the sandbox beside these."""
        needed = list(bindings)
        kept: list[Block] = []
        for block in self._held.pop(sandbox, []):
            if any(block.holds(one.protocol, one.host_ip, one.host_port, one.count) for one in needed):
                kept.append(block)
            else:
                block.close()
        if kept:
            self._held[sandbox] = kept
        else:
            self._names.pop(sandbox, None)

    def release_all(self) -> None:
        for sandbox in tuple(self._held):
            self.keep(sandbox, ())
        self.let_go()

    def sockets(self, sandbox: str, binding: PortBinding) -> Sequence[HeldSocket]:
        """Those that hold a binding, port by port; none if it is not held."""
        return next((block.sockets for block in self._held.get(sandbox, ()) if _is(block, binding)), ())

    def adopt(self, protocol: str, address: str, port: int, found: list[HeldSocket]) -> None:
        """Sockets that outlived the daemon which opened them: whoever is to hold these ports takes them."""
        both = address == ANY[6] and found and not found[0].getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        self._adopted.append(Block(protocol, _BOTH if both else (address,), port, found))

    def let_go(self) -> None:
        """Close what was adopted and nobody wanted."""
        while self._adopted:
            self._adopted.pop().close()

    def held_by(self, sandbox: str) -> list[Block]:
        return self._held.get(sandbox, [])

    def adopted(self, protocol: str, addresses: Sequence[str], port: int, count: int) -> Block | None:
        for block in self._adopted:
            if any(block.holds(protocol, address, port, count) for address in addresses):
                self._adopted.remove(block)
                return block
        return None

    def candidates(self, asked: PortBinding) -> Iterator[int]:
        """The numbers to try, best first."""
        if asked.host_port and not asked.host_port_end:
            yield asked.host_port
            return
        if asked.preferred and (not asked.host_port or asked.host_port <= asked.preferred <= asked.host_port_end):
            yield asked.preferred
        yield from range(asked.host_port, asked.host_port_end + 1) if asked.host_port else self._ephemeral.candidates(asked.protocol)

    def owner(self, protocol: str, address: str, port: int) -> str:
        """The container that holds a port; "" if none does."""
        for sandbox, blocks in self._held.items():
            if any(block.excludes(protocol, address, port) for block in blocks):
                return self._names[sandbox]
        return ""


class _Attempt:
    """One sandbox's ports being taken. `new` is what was opened for it."""

    def __init__(self, ports: HostPorts, sandbox: str, name: str) -> None:
        self._ports, self._name = ports, name
        self._spare = list(ports.held_by(sandbox))
        self.new: list[Block] = []

    def choose(self, mapping: Mapping) -> int:
        """The first number of which all addresses can be had."""
        if not mapping.held:
            return 0
        asked = mapping.asked
        busy: _Busy | None = None
        for number in self._ports.candidates(asked):
            try:
                self._take(mapping, number)
            except _Busy as error:
                busy = busy or error
            else:
                return number
        if asked.host_port and not asked.host_port_end and busy:
            raise self._refusal(asked.protocol, busy)
        where = _where(mapping.held[0], asked.host_port, asked.host_port_end) if asked.host_port else f"{asked.port}/{asked.protocol}"
        among = "of that range" if asked.host_port else "of the host's range for outgoing connections"
        raise PortTaken(f"Bind for {where} failed: all ports {among} are allocated")

    def undo(self) -> None:
        for block in self.new:
            block.close()

    def _take(self, mapping: Mapping, number: int) -> None:
        protocol, count = mapping.asked.protocol, mapping.asked.count
        mine = [block for block in self._spare if any(block.holds(protocol, address, number, count) for address in mapping.held)]
        missing = [address for address in mapping.held if not any(address in block.addresses for block in mine)]
        opened: list[Block] = []
        try:
            while missing:
                block = self._ports.adopted(protocol, missing, number, count) or self._open(protocol, missing, number, count)
                opened.append(block)
                missing = [address for address in missing if address not in block.addresses]
        except BaseException:
            for block in opened:
                block.close()
            raise
        self._spare = [block for block in self._spare if block not in mine]
        self.new += opened

    def _open(self, protocol: str, addresses: Sequence[str], number: int, count: int) -> Block:
        together = _BOTH if set(addresses) == set(_BOTH) else (addresses[0],)
        ports = range(number, number + count)
        found: list[HeldSocket] = []
        # Where the sandbox has them already on other addresses: those are let go of when all is done, not yet.
        former = dict(pair for block in self._spare for pair in block.in_the_way(protocol, together, ports))
        try:
            with _shared(former.values()):
                _bind(protocol, together, ports, found, former)
        except OSError as error:
            for held in found:
                held.close()
            port = number + max(len(found) - 1, 0)
            if error.errno == errno.EADDRINUSE:
                raise _Busy(together, port) from error
            raise _impossible(protocol, together[0], port, number + count - 1, error) from error
        return Block(protocol, together, number, found)

    def _refusal(self, protocol: str, busy: _Busy) -> PortTaken:
        """Who has it."""
        port = busy.port
        for address in busy.addresses:
            where = _where(address, port)
            owner = self._ports.owner(protocol, address, port)
            if owner and owner != self._name:
                return PortTaken(f"Bind for {where} failed: port is already allocated (by container {owner})")
            own = [held for block in (*self.new, *self._spare) for _, held in block.in_the_way(protocol, (address,), range(port, port + 1))]
            if program := sockets.owner(protocol, address, port, without={os.fstat(held.fileno()).st_ino for held in own}):
                return PortTaken(f"Bind for {where} failed: address already in use on the host (by {program})")
            if own:
                return PortTaken(f"Bind for {where} failed: port is already allocated (by container {self._name} itself)")
        return PortTaken(f"Bind for {_where(busy.addresses[0], port)} failed: address already in use on the host")


class _Busy(Exception):
    """Somebody has the port. Who that is takes time to find out, and is asked only where it matters."""

    def __init__(self, addresses: Sequence[str], port: int) -> None:
        self.addresses, self.port = addresses, port


def _impossible(protocol: str, address: str, port: int, last: int, error: OSError) -> NetplugError:
    match error.errno:
        case errno.EPROTONOSUPPORT | errno.ESOCKTNOSUPPORT | errno.EAFNOSUPPORT:
            what = "IPv6" if error.errno == errno.EAFNOSUPPORT else protocol.upper()
            return InvalidArgument(f"Bind for {_where(address, port)} failed: this host's kernel has no {what}")
        case errno.EMFILE | errno.ENFILE:
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            return NetplugError(
                f"Bind for {_where(address, port, last)} failed: every port takes a file descriptor, and the daemon may have {limit}"
                " (raise its LimitNOFILE, or publish fewer ports)"
            )
    return InvalidArgument(f"Bind for {_where(address, port)} failed: {error.strerror} (is {address} an address of this host?)")


def _openness(asked: PortBinding) -> int:
    """Who wants one number only comes first, who takes any comes last."""
    return 2 if not asked.host_port else 1 if asked.host_port_end else 0


def _is(block: Block, binding: PortBinding) -> bool:
    return block.holds(binding.protocol, binding.host_ip, binding.host_port, binding.count)


def _where(address: str, first: int, last: int = 0) -> str:
    host = f"[{address}]" if ":" in address else address
    return f"{host}:{first}" if last in (0, first) else f"{host}:{first}-{last}"


@contextmanager
def _shared(sockets: Iterable[HeldSocket]) -> Iterator[None]:
    """One that asks for it as well can be bound beside each of these, unless somebody listens on it."""
    shared = list(sockets)
    for held in shared:
        held.setsockopt(*_SHARING, 1)
    try:
        yield
    finally:
        for held in shared:
            held.setsockopt(*_SHARING, 0)


def _bind(protocol: str, addresses: tuple[str, ...], ports: range, found: list[HeldSocket], shared: Container[int] = ()) -> None:
    """Add a socket to `found` for each port. On OSError the last one there is the one that it is about.

    `shared`: ports that may be had beside another socket.
    """
    kind, number = _KINDS[protocol]
    address = addresses[-1]
    domain = socket.AF_INET6 if family(address) == 6 else socket.AF_INET
    opened = _socket.socket
    options: list[tuple[int, int, int]] | None = None
    for port in ports:
        held = opened(domain, kind | socket.SOCK_CLOEXEC, number)
        found.append(held)
        if options is None:
            options = _options(held, protocol, only6=len(addresses) == 1)
        for option in options:
            held.setsockopt(*option)
        try:
            held.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE and port in shared:
                _join(held, address, port)
            elif error.errno == errno.EADDRINUSE and protocol == "tcp":
                _take_over(held, address, port)
            else:
                raise
    # The kernel gives the lowest number that is free, so the last one is the highest.
    if found[-1].fileno() >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVE:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    # Not one by one: each would leave its low number to the next.
    for index, held in enumerate(found):
        if held.fileno() < FD_SETSIZE:
            found[index] = opened(domain, kind, number, lifted(held.detach()))


def _options(first: HeldSocket, protocol: str, *, only6: bool) -> list[tuple[int, int, int]]:
    """What has to be said to each socket, as `first` was born."""
    options = []
    if first.family == socket.AF_INET6 and bool(first.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)) != only6:
        options.append((socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(only6)))
    if protocol == "udp":
        # Datagrams that come before the redirection is in place are not worth memory.
        options.append((socket.SOL_SOCKET, socket.SO_RCVBUF, 1))
    return options


def _join(held: HeldSocket, address: str, port: int) -> None:
    """Bind beside a socket that is shared at the moment.

    Nobody else can join them: the kernel remembers of a port that its first socket did not share it (`fastreuse`).
    """
    held.setsockopt(*_SHARING, 1)
    held.bind((address, port))
    held.setsockopt(*_SHARING, 0)


def _take_over(held: HeldSocket, address: str, port: int) -> None:
    """Bind where only finished connections are left of whoever had the port: they block it for a minute (TIME_WAIT).

    With SO_REUSEADDR they do not; but then another program could take the port beside us, until somebody listens. So listen, and stop.
    """
    held.setsockopt(*_SHARING, 1)
    held.bind((address, port))
    held.listen(0)
    held.setsockopt(*_SHARING, 0)
    held.shutdown(socket.SHUT_RDWR)
