"""What is noted of something that another process must not keep: `farewells/<network>/<endpoint>` in this host's store."""

from __future__ import annotations

from netplug.model import Endpoint, Network, PoolConfig, Record, Sandbox
from netplug.store import PREFIX

KEYS = f"{PREFIX}farewells/"


class Farewell(Record, frozen=True, kw_only=True):
    """To a network, or to an endpoint of it that may have a link in the sandbox; with a `slot`, to what IPAM has lent for it."""

    network: Network
    endpoint: Endpoint | None = None
    sandbox: Sandbox | None = None
    slot: str = ""
    """Which of the network's pools, by number, or which of the endpoint's addresses (`4`, `6`); `""`: it is the driver's to be told."""
    pool: PoolConfig | None = None
    """That one, or the one that the address is of. Without a `handle` it was asked for, and nobody knows the answer."""
    address: str = ""
    """Without prefix; `""`: likewise."""
    wanted: str = ""
    """The address that was asked for; `""`: any. Of a pool: its IP version."""
    word: str = ""
    """By which it was asked for."""

    @property
    def key(self) -> str:
        owner = f"{KEYS}{self.network.id}/{self.endpoint.id if self.endpoint is not None else ''}"
        return f"{owner}/{self.slot}" if self.slot else owner

    def __str__(self) -> str:
        if self.slot:
            what = "pool" if self.endpoint is None else "address"
            lent = self.address if self.endpoint is not None else self.pool.subnet if self.pool is not None else ""
            return f"{what} {lent} of network {self.network.name}".replace("  ", " ")
        if self.endpoint is None:
            return f"network {self.network.name}"
        return f"endpoint of {self.endpoint.container_name} on network {self.network.name}"
