"""What the Docker Engine sends to a plugin (libnetwork's docs/remote.md and docs/ipam.md), read into frozen structs.

Go writes an empty list or map as `null`. Fields that we do not know are passed over: a later engine may send more.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from netplug.errors import InvalidArgument

GENERIC = "com.docker.network.generic"
"""In a network's options: those of the user."""
ENABLE_IPV6 = "com.docker.network.enable_ipv6"
INTERNAL = "com.docker.network.internal"
PORT_MAP = "com.docker.network.portmap"
EXPOSED_PORTS = "com.docker.network.endpoint.exposedports"
TAKES = "netplug.takes"
"""An option of CreateNetwork and Join: who asks is another netplug, which takes the link in itself, also where the container runs."""
REQUEST = "netplug.request"
"""An option of requests for pools and addresses: who asks by the same word gets the same, once."""
ADDRESS_TYPE = "RequestAddressType"
GATEWAY = "com.docker.network.gateway"

T = TypeVar("T")

_IDENTITY = r"^[0-9a-f]{64}$"


class Body(msgspec.Struct, frozen=True, rename="pascal"):
    """Base of all that is sent."""


class Nothing(Body, frozen=True, rename="pascal"):
    """Nothing that we need."""


class IpamData(Body, frozen=True, rename="pascal"):
    """A pool of a network as the engine has it: CIDRs, the gateway's with the subnet's prefix."""

    address_space: str = ""
    pool: str = ""
    gateway: str = ""
    aux_addresses: dict[str, str] | None = None


class NetworkRef(Body, frozen=True, rename={"network_id": "NetworkID"}):
    network_id: str


class CreateNetwork(Body, frozen=True, rename={"network_id": "NetworkID", "options": "Options", "ipv4": "IPv4Data", "ipv6": "IPv6Data"}):
    network_id: str
    options: dict[str, Any] | None = None
    ipv4: list[IpamData] | None = None
    ipv6: list[IpamData] | None = None


class Interface(Body, frozen=True, rename={"address": "Address", "address6": "AddressIPv6", "mac": "MacAddress"}):
    """Addresses carry their prefix."""

    address: str = ""
    address6: str = ""
    mac: str = ""


_ENDPOINT = {"network_id": "NetworkID", "endpoint_id": "EndpointID", "interface": "Interface", "options": "Options", "key": "SandboxKey"}


class EndpointRef(Body, frozen=True, rename=_ENDPOINT):
    network_id: str
    endpoint_id: str


class CreateEndpoint(Body, frozen=True, rename=_ENDPOINT):
    network_id: str
    endpoint_id: str
    interface: Interface | None = None
    options: dict[str, Any] | None = None


class Join(Body, frozen=True, rename=_ENDPOINT):
    network_id: str
    endpoint_id: str
    key: str
    options: dict[str, Any] | None = None


class External(Body, frozen=True, rename=_ENDPOINT):
    network_id: str
    endpoint_id: str
    options: dict[str, Any] | None = None


class PortBinding(
    Body, frozen=True, rename={"protocol": "Proto", "port": "Port", "host_ip": "HostIP", "host_port": "HostPort", "end": "HostPortEnd"}
):
    """`protocol` is its number."""

    protocol: int
    port: int
    host_ip: str = ""
    host_port: int = 0
    end: int = 0


_POOL = {
    "space": "AddressSpace",
    "pool": "Pool",
    "sub_pool": "SubPool",
    "options": "Options",
    "v6": "V6",
    "identity": "PoolID",
    "address": "Address",
}


class RequestPool(Body, frozen=True, rename=_POOL):
    space: str = ""
    pool: str = ""
    sub_pool: str = ""
    options: dict[str, Any] | None = None
    v6: bool = False


class PoolRef(Body, frozen=True, rename=_POOL):
    identity: str


class RequestAddress(Body, frozen=True, rename=_POOL):
    identity: str
    address: str = ""
    options: dict[str, Any] | None = None


class ReleaseAddress(Body, frozen=True, rename=_POOL):
    identity: str
    address: str


B = TypeVar("B", bound=Body)


def read(data: bytes, kind: type[B]) -> B:
    """InvalidArgument says where the body is wrong."""
    if not data and any(field.required for field in msgspec.structs.fields(kind)):
        # dockerd asks again when a connection breaks, and has sent the body already.
        raise InvalidArgument("the request has no body; if the Docker Engine lost it while netplug was started anew: try again")
    try:
        return msgspec.json.decode(data or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"the request's body cannot be read: {error}") from None


def convert(value: object, kind: type[T], what: str) -> T:
    """The same for a value of an option."""
    try:
        return msgspec.convert(value, type=kind)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"option {what} cannot be read: {error}") from None


def text_options(options: dict[str, Any] | None) -> dict[str, str]:
    """The user's options of a network, or an endpoint's, as text; those of the engine's own are left out."""
    found = dict(options or {})
    generic = found.get(GENERIC)
    return {key: value for key, value in (generic if isinstance(generic, dict) else found).items() if isinstance(value, str)}


def flag(options: dict[str, Any] | None, name: str) -> bool:
    value = (options or {}).get(name, False)
    return value is True or (isinstance(value, str) and value.lower() == "true")
