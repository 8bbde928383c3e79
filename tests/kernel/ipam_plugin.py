"""A Docker v1 IPAM plugin of its own, written from the protocol's description and nothing of netplug's: /24s of 10.128.0.0/9 in turn.

    python ipam_plugin.py SOCKET DIRECTORY

DIRECTORY is as for `bridge_plugin.py`. DIRECTORY/first.json, if it is there, is a list of subnets that are given before any other.
"""

from __future__ import annotations

import ipaddress
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bridge_plugin import Request, Server, serve


class Kept:
    """`pools`: by id, the subnet; `addresses`: by pool and address, what for."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "state.json"
        self.pools: dict[str, str] = {}
        self.addresses: dict[str, str] = {}
        if self.path.exists():
            self.pools, self.addresses = json.loads(self.path.read_text())

    def keep(self) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps([self.pools, self.addresses]))
        new.rename(self.path)


class Ipam:
    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder, Kept(folder)

    def get_capabilities(self, _: Request) -> Request:
        return {"RequiresMACAddress": (self.folder / "needs-mac").exists()}

    def get_default_address_spaces(self, _: Request) -> Request:
        return {"LocalDefaultAddressSpace": "here", "GlobalDefaultAddressSpace": "everywhere"}

    def request_pool(self, body: Request) -> Request:
        if body["AddressSpace"] != "here":
            raise ValueError(f"no address space {body['AddressSpace']}")
        taken = [ipaddress.ip_network(subnet) for subnet in self.state.pools.values()]
        pool = ipaddress.ip_network(body["Pool"]) if body["Pool"] else self._free(body["V6"], taken)
        if any(pool.version == other.version and pool.overlaps(other) for other in taken):
            raise ValueError(f"pool {pool} is taken")
        identity = f"pool-{pool}"
        self.state.pools[identity] = str(pool)
        return {"PoolID": identity, "Pool": str(pool), "Data": {}}

    def _free(self, v6: bool, taken: list[Any]) -> Any:
        first = self.folder / "first.json"
        listed = [ipaddress.ip_network(text) for text in json.loads(first.read_text())] if first.exists() and not v6 else []
        base, length = (ipaddress.ip_network("fd12::/48"), 64) if v6 else (ipaddress.ip_network("10.128.0.0/9"), 24)
        return next(subnet for subnet in (*listed, *itertools.islice(base.subnets(new_prefix=length), 100)) if subnet not in taken)

    def release_pool(self, body: Request) -> Request:
        if any(address.startswith(body["PoolID"] + " ") for address in self.state.addresses):
            raise ValueError(f"pool {body['PoolID']} has addresses")
        del self.state.pools[body["PoolID"]]
        return {}

    def request_address(self, body: Request) -> Request:
        pool, options = ipaddress.ip_network(self.state.pools[body["PoolID"]]), body["Options"] or {}
        gateway = options.get("RequestAddressType") == "com.docker.network.gateway"
        if not gateway and (self.folder / "needs-mac").exists() and not options.get("com.docker.network.endpoint.macaddress"):
            raise ValueError("an address needs a MAC")
        hosts = (str(pool[number]) for number in range(254 if gateway else 100, 0, -1))
        wanted = body["Address"] or next(host for host in hosts if f"{body['PoolID']} {host}" not in self.state.addresses)
        key = f"{body['PoolID']} {wanted}"
        if key in self.state.addresses:
            raise ValueError(f"{wanted} is taken")
        self.state.addresses[key] = json.dumps(options)
        return {"Address": f"{wanted}/{pool.prefixlen}", "Data": {}}

    def release_address(self, body: Request) -> Request:
        del self.state.addresses[f"{body['PoolID']} {body['Address']}"]
        return {}


METHODS: dict[str, Callable[[Ipam, Request], Request]] = {
    "GetCapabilities": Ipam.get_capabilities,
    "GetDefaultAddressSpaces": Ipam.get_default_address_spaces,
    "RequestPool": Ipam.request_pool,
    "ReleasePool": Ipam.release_pool,
    "RequestAddress": Ipam.request_address,
    "ReleaseAddress": Ipam.release_address,
}


class IpamServer(Server):
    role, methods, kind = "IpamDriver", METHODS, Ipam  # type: ignore[assignment]


if __name__ == "__main__":
    serve(IpamServer)
