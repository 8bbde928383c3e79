"""Host ports: chosen, and held by a bound socket for as long as they are published.

A held port is bound but never listens: connections are redirected before they reach it, and nobody else on the host can take the number.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterable, Sequence

import msgspec

from netplug.errors import InvalidArgument, PortTaken
from netplug.kernel import sockets
from netplug.kernel.descriptors import lifted_socket
from netplug.model import PortBinding

_KINDS = {"tcp": (socket.SOCK_STREAM, 0), "udp": (socket.SOCK_DGRAM, 0), "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP)}


class HostPorts:
    """The ports held for each sandbox."""

    def __init__(self) -> None:
        self._held: dict[str, list[tuple[PortBinding, socket.socket]]] = {}
        self._names: dict[str, str] = {}

    def hold(self, sandbox: str, name: str, bindings: Sequence[PortBinding]) -> tuple[PortBinding, ...]:
        """Bind all of them or none; the same bindings with their host ports chosen.

        PortTaken names who has a port; InvalidArgument says that a host address is not this host's.
        """
        if sandbox in self._held:
            return tuple(binding for binding, _ in self._held[sandbox])
        held = self._held[sandbox] = []
        self._names[sandbox] = name
        try:
            for binding in bindings:
                held.append(self._bind(binding))
        except BaseException:
            self.release(sandbox)
            raise
        return tuple(binding for binding, _ in held)

    def release(self, sandbox: str) -> None:
        _close(self._held.pop(sandbox, ()))
        self._names.pop(sandbox, None)

    def release_all(self) -> None:
        for sandbox in tuple(self._held):
            self.release(sandbox)

    def _bind(self, binding: PortBinding) -> tuple[PortBinding, socket.socket]:
        """The port asked for, or the first free one of its range (0: the kernel's choice)."""
        last = max(binding.host_port, binding.host_port_end)
        for port in range(binding.host_port, last + 1):
            try:
                held = self._socket(binding, port)
            except OSError as error:
                if error.errno == errno.EADDRINUSE and port < last:
                    continue
                raise self._refusal(binding, port, error) from error
            return msgspec.structs.replace(binding, host_port=held.getsockname()[1], host_port_end=0), held
        raise AssertionError("a range of ports is never empty")

    def _socket(self, binding: PortBinding, port: int) -> socket.socket:
        kind, protocol = _KINDS[binding.protocol]
        family = socket.AF_INET6 if ":" in binding.host_ip else socket.AF_INET
        held = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
        try:
            # Datagrams that come before the redirection is in place are not worth memory.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            held.bind((binding.host_ip or "0.0.0.0", port))
        except BaseException:
            held.close()
            raise
        return lifted_socket(held)

    def _refusal(self, binding: PortBinding, port: int, error: OSError) -> Exception:
        where = f"{binding.host_ip or '0.0.0.0'}:{port}"
        if error.errno != errno.EADDRINUSE:
            return InvalidArgument(f"Bind for {where} failed: {error.strerror} (is {binding.host_ip} an address of this host?)")
        owner = self._owner(binding, port)
        if owner:
            return PortTaken(f"Bind for {where} failed: port is already allocated (by container {owner})")
        program = sockets.owner(binding.protocol, port)
        held_by = f" (by {program})" if program else ""
        return PortTaken(f"Bind for {where} failed: address already in use on the host{held_by}")

    def _owner(self, wanted: PortBinding, port: int) -> str:
        for sandbox, held in self._held.items():
            for binding, _ in held:
                if (binding.protocol, binding.host_port) == (wanted.protocol, port):
                    return self._names[sandbox]
        return ""


def _close(held: Iterable[tuple[PortBinding, socket.socket]]) -> None:
    for _, kept in held:
        with contextlib.suppress(OSError):
            kept.close()
