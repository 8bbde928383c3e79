"""/netplug/points: where the packets of a container, of a network, or of the host can be seen. Who is allowed to may open them himself."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from aiohttp import web

from netplug.api.call import Call, reply
from netplug.api.extensions import engined
from netplug.api.routes import get
from netplug.api.views import Json
from netplug.controller.points import Point
from netplug.errors import Conflict, InvalidArgument, NotFound
from netplug.plan import HOST

Found = tuple[str, Sequence[Point]]
"""The name of what was asked for, and where it is to be seen."""


async def points(call: Call) -> web.Response:
    """Of the container or, if there is none, the network of that name; `type` asks for one of `KINDS` alone."""
    wanted = call.query.get("type", "")
    if wanted and wanted not in KINDS:
        raise InvalidArgument(f'"{wanted}" is none of {", ".join(KINDS)}')
    for kind in (wanted,) if wanted else KINDS:
        try:
            name, found = KINDS[kind](call)
        except NotFound:
            continue
        return reply(
            {"Name": name, "Host": _here(call), "Clustered": call.services.nodes is not None, "Points": [_view(one) for one in found]}
        )
    raise NotFound(f"No such {wanted or 'container or network'}: {call.name}")


def _container(call: Call) -> Found:
    controller = call.services.controller
    try:
        container = call.services.containers.get(call.name)
    except NotFound:
        sandbox = engined(call)
        return sandbox.name, controller.points_of_sandbox(sandbox.id)
    if container.status != "running":
        raise Conflict(f"container {container.name} is not running")
    return container.name, controller.points_of_sandbox(container.id)


def _network(call: Call) -> Found:
    network = call.services.controller.network(call.name)
    if network.driver == "host":
        return _uplinks(call)
    if found := call.services.controller.points_of_network(network.id):
        return network.name, found
    raise Conflict(f"network {network.name} has no link that packets could be seen on")


def _host(call: Call) -> Found:
    if call.name != "host":
        raise NotFound(f"No such host: {call.name}")
    return _uplinks(call)


def _uplinks(call: Call) -> Found:
    """For whoever opens them to find; beside them, the link that has the node's address in the underlay."""
    nodes = call.services.nodes
    own = [node for node, _ in nodes.all() if nodes.is_me(node)] if nodes else []
    underlay = [Point(HOST, "", "", "where other nodes reach this one", node.address) for node in own]
    return "host", [Point(HOST, "", "", "the host's way out"), *underlay]


KINDS: dict[str, Callable[[Call], Found]] = {"container": _container, "network": _network, "host": _host}


def _here(call: Call) -> str:
    return call.services.nodes.name if call.services.nodes is not None else socket.gethostname()


def _view(point: Point) -> Json:
    return {
        "Namespace": point.namespace,
        "Link": point.link,
        "Owner": point.owner,
        "About": point.about,
        "Address": point.address,
        "VNI": point.vni,
        "Port": point.port,
        "DNS": point.dns,
    }


ROUTES = [get("/netplug/points/{name}", points)]
