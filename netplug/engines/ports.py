"""Published ports as the engine writes them."""

from __future__ import annotations

from typing import Any

from netplug.engines import shapes
from netplug.errors import InvalidArgument
from netplug.model import PortBinding, Protocol

_PROTOCOLS: dict[int, Protocol] = {6: "tcp", 17: "udp", 132: "sctp"}


def port_bindings(options: dict[str, Any] | None) -> tuple[PortBinding, ...]:
    """Of the options of ProgramExternalConnectivity; ports in a row are not gathered, each has its own chosen host port."""
    found = shapes.convert((options or {}).get(shapes.PORT_MAP) or [], list[shapes.PortBinding], shapes.PORT_MAP)
    return tuple(map(_binding, found))


def _binding(port: shapes.PortBinding) -> PortBinding:
    protocol = _PROTOCOLS.get(port.protocol)
    if protocol is None or not 0 < port.port < 65536 or not 0 <= port.host_port < 65536:
        raise InvalidArgument(f"port {port.port} of protocol {port.protocol} cannot be published at {port.host_port}")
    # No address means every one of each IP version here, and `0.0.0.0` IPv4 only; the engine says `0.0.0.0` for both.
    host_ip = "" if port.host_ip in ("", "0.0.0.0") else port.host_ip
    end = port.end if port.end > port.host_port else 0
    return PortBinding(protocol=protocol, port=port.port, host_ip=host_ip, host_port=port.host_port, host_port_end=end)
