"""What the daemon tells the resolver process: names of endpoints, and which sandbox may ask for them."""

from __future__ import annotations

import msgspec


class EndpointNames(msgspec.Struct, frozen=True):
    """The names under which one endpoint is known in one network.

    `names[0]` is the one that a reverse lookup gives (with `.network_name`). Each name also resolves as `name.network_name`.
    `address` is IPv4 or IPv6 text without prefix, or `""`; `address6` an IPv6 address beside an IPv4 one.
    """

    network: str
    endpoint: str
    names: tuple[str, ...]
    address: str
    network_name: str
    address6: str = ""


class SandboxNames(msgspec.Struct, frozen=True):
    """What one sandbox sees: the names of its networks, and where its other questions go.

    Where two networks know a name, the first in `networks` answers; `extra` (name -> address, links) comes before all networks.
    `servers` are asked from the sandbox's namespace, three at most; with none, the host's servers are asked from the host's
    namespace. `forward` False (only internal networks): nobody is asked. `cookie` is the namespace's SO_NETNS_COOKIE.
    """

    id: str
    networks: tuple[str, ...]
    cookie: int
    servers: tuple[str, ...] = ()
    forward: bool = True
    extra: dict[str, str] = {}
