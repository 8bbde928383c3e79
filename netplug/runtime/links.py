"""Links (`--link other:alias`): the environment variables and the hosts lines that a container gets for another one.

Docker's oldest way to find a neighbour, for the default bridge; on other networks names do this, and a link is one more name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter

from netplug.errors import InvalidArgument
from netplug.runtime.hosts import Line
from netplug.runtime.model import Container

_PRIVATE = {"HOME", "PATH", "HOSTNAME", "TERM"}
"""Variables of the other container that say nothing to anybody else."""


def parse(link: str) -> tuple[str, str]:
    """`name:alias`, `name` or `/name:/us/alias` to (name, alias)."""
    name, _, alias = link.partition(":")
    alias = alias or name
    if not name.strip("/") or ":" in alias:
        raise InvalidArgument(f"bad format for links: {link}")
    return name.lstrip("/"), alias.rpartition("/")[2]


def environment(owner: Container, alias: str, other: Container, address: str) -> list[str]:
    """`DB_PORT_5432_TCP_ADDR` and its kin, as Docker sets them: ports ascending, `DB_PORT` is the first, rows have a start and an end."""
    prefix = alias.upper().replace("-", "_").replace(".", "_")
    host = f"[{address}]" if ":" in address else address
    variables = [f"{prefix}_NAME=/{owner.name}/{alias}"]
    for index, (port, protocol) in enumerate(_ports(other)):
        url = f"{protocol}://{host}:{port}"
        if index == 0:
            variables.append(f"{prefix}_PORT={url}")
        base = f"{prefix}_PORT_{port}_{protocol.upper()}"
        variables += [f"{base}={url}", f"{base}_ADDR={address}", f"{base}_PORT={port}", f"{base}_PROTO={protocol}"]
    for first, last, protocol in _rows(_ports(other)):
        base = f"{prefix}_PORT_{first}_{protocol.upper()}"
        variables += [f"{base}_START={protocol}://{host}:{first}", f"{base}_PORT_START={first}"]
        variables += [f"{base}_END={protocol}://{host}:{last}", f"{base}_PORT_END={last}"]
    theirs = (entry for entry in other.config.environment if "=" in entry and entry.partition("=")[0] not in _PRIVATE)
    return variables + [f"{prefix}_ENV_{entry}" for entry in theirs]


def line(alias: str, other: Container, hostname: str, address: str) -> Line:
    """The alias, the other's hostname, and its name if that is yet another one."""
    names: Iterable[str] = dict.fromkeys((alias, hostname, other.name))
    return address, " ".join(names)


def _ports(container: Container) -> list[tuple[int, str]]:
    exposed = [entry.partition("/") for entry in container.config.exposed]
    ports = {(int(port), protocol or "tcp") for port, _, protocol in exposed if port.isdecimal()}
    ports |= {(port, one.protocol) for one in container.config.ports for port in range(one.port, one.port + one.count)}
    return sorted(ports)


def _rows(ports: Iterable[tuple[int, str]]) -> Iterator[tuple[int, int, str]]:
    """(first, last, protocol) of ports of one protocol that follow one another; as with Docker, two are no row."""
    for protocol, ours in groupby(sorted((protocol, port) for port, protocol in ports), key=itemgetter(0)):
        for _, row in groupby(enumerate(port for _, port in ours), key=lambda pair: pair[1] - pair[0]):
            numbers = [port for _, port in row]
            if len(numbers) > 2:
                yield numbers[0], numbers[-1], protocol
