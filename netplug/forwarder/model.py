"""What the daemon says about relays."""

from __future__ import annotations

from netplug.model import Protocol, Record


class Relay(Record, frozen=True, kw_only=True):
    """What comes to `host_port` on `host_ip` goes to `address`:`port`; so with the `count - 1` ports behind it.

    With `loopback` only what comes to ::1: everything else is led by NAT, and nothing of it is ever to be relayed.
    """

    protocol: Protocol
    host_ip: str
    host_port: int
    address: str
    port: int
    count: int = 1
    loopback: bool = False

    @property
    def key(self) -> str:
        """`tcp/[::]:8080`."""
        return f"{self.protocol}/[{self.host_ip}]:{self.host_port}"
