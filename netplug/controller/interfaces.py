"""The interface that an endpoint has in its sandbox: its name, and its sysctls. The same for every driver."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from netplug.errors import Forbidden, InvalidArgument
from netplug.model import Attachment, Endpoint, Network, Sandbox
from netplug.plan import Plan, Sysctl

PREFIX = "com.docker.network.container_iface_prefix"
NAME = "com.docker.network.endpoint.ifname"
SYSCTLS = "com.docker.network.endpoint.sysctls"

# The docker command makes all of `--network name=…,driver-opt=…` lower case.
_SYSCTL = re.compile(r"(net\.(?:ipv4|ipv6|mpls)\.\w+)\.(?:IFNAME|ifname)\.(\w+)=(.+)", re.ASCII)


def free_name(network: Network, present: Sequence[Endpoint], options: Mapping[str, str], given: Attachment | None = None) -> str:
    """The name that the endpoint's option asks for, else the network's prefix and the first number that is free in the sandbox.

    Where neither user nor network say anything, as the driver has answered (`given`).
    """
    used = {endpoint.interface for endpoint in present}
    prefix = checked_prefix(network)
    chosen = given if given is not None and not network.options.get(PREFIX) else Attachment()
    wanted = options.get(NAME, "") or chosen.interface
    if wanted:
        return _checked(wanted, used)
    prefix = chosen.prefix or prefix
    return next(name for number in range(len(used) + 1) if (name := f"{prefix}{number}") not in used)


def checked_prefix(network: Network) -> str:
    prefix = network.options.get(PREFIX, "") or "eth"
    if not re.fullmatch(r"[\w.-]{1,12}", prefix, re.ASCII):
        raise InvalidArgument(f'invalid {PREFIX} "{prefix}": 1 to 12 letters, digits or "_.-" are allowed')
    return prefix


def settings(endpoint: Endpoint, sandbox: Sandbox) -> Iterator[Sysctl]:
    """What the interface is set to before it gets its addresses; InvalidArgument for an option that cannot be read.

    New interfaces of a sandbox have no IPv6 (`sandboxes.creation`). One that gets it takes no addresses and routes from router
    advertisements: everything it should have comes from IPAM.
    """
    link = endpoint.interface.replace(".", "/")
    if endpoint.address6:
        if sandbox.kind == "engine":  # whose loopback has no IPv6 before there is an address of it, so that nobody reaches himself
            yield Sysctl(namespace=sandbox.namespace, key="net.ipv6.conf.lo.disable_ipv6", value="0")
        yield Sysctl(namespace=sandbox.namespace, key=f"net.ipv6.conf.{link}.accept_ra", value="0")
        yield Sysctl(namespace=sandbox.namespace, key=f"net.ipv6.conf.{link}.disable_ipv6", value="0")
    elif sandbox.kind == "given":
        yield Sysctl(namespace=sandbox.namespace, key=f"net.ipv6.conf.{link}.disable_ipv6", value="1")
    for key, name, value in parse_sysctls(endpoint.options):
        yield Sysctl(namespace=sandbox.namespace, key=f"{key}.{link}.{name}", value=value)


def configured(plan: Plan, endpoint: Endpoint, sandbox: Sandbox) -> Plan:
    """The driver's plan for joining, with the interface's settings between the link's birth and the first step in the sandbox."""
    steps = tuple(settings(endpoint, sandbox))
    if not steps:
        return plan
    born = next((position for position, step in enumerate(plan) if step.namespace == sandbox.namespace), len(plan))
    return (*plan[:born], *steps, *plan[born:])


def parse_sysctls(options: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """`net.ipv4.conf.IFNAME.log_martians=1,…` as (`net.ipv4.conf`, `log_martians`, `1`) each."""
    found = []
    for text in filter(None, options.get(SYSCTLS, "").split(",")):
        match = _SYSCTL.fullmatch(text.strip())
        if match is None:
            raise InvalidArgument(
                f"unrecognised network interface sysctl '{text}'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V',"
                " 'X' must be 'ipv4', 'ipv6' or 'mpls'"
            )
        found.append((match[1], match[2], match[3]))
    return found


def _checked(name: str, used: set[str]) -> str:
    if not re.fullmatch(r"[\w.@+-]{1,15}", name, re.ASCII) or name in {".", "..", "all", "default", "lo"}:
        raise InvalidArgument(f'invalid {NAME} "{name}": 1 to 15 letters, digits or "_.@+-" are allowed, but not all, default or lo')
    if name in used:
        raise Forbidden(f'the interface name "{name}" is in use by another network of the container: give another {NAME}')
    return name
