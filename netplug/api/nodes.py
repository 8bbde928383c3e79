"""/netplug/nodes: the nodes of the cluster that this host is in."""

from __future__ import annotations

from aiohttp import web

from netplug.api import dryrun, filters
from netplug.api.call import Call, done, planned, reply
from netplug.api.routes import delete, get
from netplug.api.services import Nodes
from netplug.api.views import Json
from netplug.errors import Unavailable
from netplug.model import Node

KEYS = frozenset({"name"})


async def list_nodes(call: Call) -> web.Response:
    """As they are known here: also while the cluster's store does not answer, with a warning then."""
    nodes = _nodes(call)
    wanted = call.filters(KEYS)
    found = [node for node, _ in nodes.all() if "name" not in wanted or filters.matches(node.name, wanted["name"])]
    return reply({"Nodes": [_view(nodes, node) for node in found], "Warnings": [nodes.trouble] if nodes.trouble else []})


async def inspect(call: Call) -> web.Response:
    """With what it has of the cluster's networks."""
    nodes = _nodes(call)
    node = nodes.get(call.name)
    endpoints = await nodes.endpoints_of(node.name)
    known = {network.id: network.name for network in call.services.controller.networks()}
    networks = sorted({known.get(endpoint.network, endpoint.network) for endpoint in endpoints})
    more = {"Identity": node.identity, "Incarnation": node.incarnation, "Endpoints": len(endpoints), "Networks": networks}
    return reply({**_view(nodes, node), **more})


async def remove(call: Call) -> web.Response:
    """A node that will not come back: its names and addresses are free."""
    nodes = _nodes(call)
    if call.dry_run:
        return planned(dryrun.node_removed(nodes, call.name, call.flag("force")))
    _, extra = await call.perform(nodes.remove(call.name, force=call.flag("force")))
    return done(extra)


def _nodes(call: Call) -> Nodes:
    if call.services.nodes is None:
        raise Unavailable("this host is in no cluster: start the daemon with --store etcd://HOST:PORT and --advertise ADDRESS")
    return call.services.nodes


def _view(nodes: Nodes, node: Node) -> Json:
    return {
        "Name": node.name,
        "Status": "Ready" if nodes.lives(node.name) else "Down",
        "Address": node.address,
        "Version": node.version,
        "Self": nodes.is_me(node),
        "Started": node.started,
    }


ROUTES = [
    get("/netplug/nodes", list_nodes),
    get("/netplug/nodes/{name}", inspect),
    delete("/netplug/nodes/{name}", remove),
]
