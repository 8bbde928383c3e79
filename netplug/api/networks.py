"""/networks: list, inspect, create, remove, prune, connect, disconnect."""

from __future__ import annotations

from contextlib import suppress

import msgspec
from aiohttp import web

from netplug.api import decode, filters, shapes, views
from netplug.api.call import Call, done, planned, reply
from netplug.api.routes import delete, get, post
from netplug.controller.requests import EndpointRequest
from netplug.errors import Forbidden, InvalidArgument, NetworkInUse, Unavailable
from netplug.model import Endpoint, Network
from netplug.plan import Plan
from netplug.registry import Drivers
from netplug.runtime.model import Container
from netplug.runtime.networking import endpoint_request


async def list_networks(call: Call) -> web.Response:
    """Filters are honoured to the letter: compose removes whatever this answers."""
    wanted = call.filters(filters.NETWORK_KEYS)
    found = filters.networks(call.services.controller.networks(), wanted, lambda network: _in_use(call, network))
    return reply([views.network(network) for network in sorted(found, key=lambda network: network.created)])


async def inspect(call: Call) -> web.Response:
    controller = call.services.controller
    network = controller.network(call.name)
    endpoints = [_as_known(call, endpoint) for endpoint in controller.endpoints(network=network.id)]
    return reply(views.network(network, endpoints, controller.remote_endpoints(network.id)))


def _as_known(call: Call, endpoint: Endpoint) -> Endpoint:
    """Under the id that another engine's container has there."""
    sandbox = call.services.controller.sandbox(endpoint.sandbox)
    return msgspec.structs.replace(endpoint, sandbox=sandbox.container) if sandbox is not None and sandbox.container else endpoint


async def create(call: Call) -> web.Response:
    controller = call.services.controller
    body = await call.body(shapes.NetworkCreate)
    request, warnings = decode.network_request(body, call.services.settings.default_network_options)
    _check_scope(body.scope, request.driver)
    if call.dry_run:
        plan = await controller.plan_network(request)
        return planned(controller.explain([plan]), {"Id": "", "Warning": "; ".join(warnings)}, 201)
    network, extra = await call.perform(controller.create_network(request))
    advice = call.services.advise(network, chosen=not request.pools)
    return reply({"Id": network.id, "Warning": "; ".join([*warnings, *advice]), **extra}, 201)


def _check_scope(wanted: str, driver: str) -> None:
    """The driver decides it; who says it must say the same."""
    if not wanted or wanted == (scope := Drivers().named(driver).capabilities.scope):
        return
    if wanted == "local" and scope == "global":
        raise Forbidden(f"cannot downgrade network scope for {driver} networks")
    raise InvalidArgument(f"invalid scope {wanted}: {driver} networks are {scope}")


async def remove(call: Call) -> web.Response:
    controller = call.services.controller
    if call.dry_run:
        return planned(controller.explain([await controller.plan_network_removal(call.name)]))
    _, extra = await call.perform(controller.remove_network(call.name))
    return done(extra)


async def prune(call: Call) -> web.Response:
    """Every network that nobody is on, the predefined ones apart."""
    controller = call.services.controller
    wanted = call.filters(filters.NETWORK_PRUNE_KEYS)
    for value in wanted.get("until", ()):
        filters.moment(value)  # also where no network is old enough to ask
    unused = [
        network
        for network in controller.networks()
        if not network.predefined and not _in_use(call, network) and filters.prunable(network, wanted)
    ]
    if call.dry_run:
        plans = await _plan_removals(call, unused)
        return planned(controller.explain(list(plans.values())), {"NetworksDeleted": list(plans)})
    deleted, extra = await call.perform(_remove_all(call, unused))
    return reply({"NetworksDeleted": deleted, **extra})


async def _plan_removals(call: Call, unused: list[Network]) -> dict[str, Plan]:
    plans = {}
    for network in unused:
        with _what_has_to_stay():
            plans[network.name] = await call.services.controller.plan_network_removal(network.id)
    return plans


async def _remove_all(call: Call, unused: list[Network]) -> list[str]:
    deleted = []
    for network in unused:
        with _what_has_to_stay():
            await call.services.controller.remove_network(network.id)
            deleted.append(network.name)
    return deleted


def _what_has_to_stay() -> suppress:
    """Somebody came on it meanwhile, or is on it on another node; or nobody can tell, as the cluster is away."""
    return suppress(NetworkInUse, Unavailable)


async def connect(call: Call) -> web.Response:
    body = await call.body(shapes.NetworkConnect)
    containers = call.services.containers
    container = containers.get(_named(body.container))
    wanted = decode.attachment(call.name, body.endpoint_config)
    if call.dry_run:
        return await _plan_connect(call, container, endpoint_request(container, wanted))
    _, extra = await call.perform(containers.connect(call.name, container.id, wanted))
    return done(extra, 200)


async def _plan_connect(call: Call, container: Container, request: EndpointRequest) -> web.Response:
    """Connecting a container that does not run changes its record only."""
    controller = call.services.controller
    network = controller.network(call.name)
    if controller.sandbox(container.id) is None:
        return planned([])
    return planned(controller.explain([await controller.plan_connect(network.id, container.id, request)]))


async def disconnect(call: Call) -> web.Response:
    body = await call.body(shapes.NetworkDisconnect)
    controller, containers = call.services.controller, call.services.containers
    container = containers.get(_named(body.container))
    if call.dry_run:
        network = controller.network(call.name)
        connected = controller.endpoints(network=network.id) if controller.sandbox(container.id) else []
        if not any(endpoint.sandbox == container.id for endpoint in connected):
            return planned([])
        return planned(controller.explain([await controller.plan_disconnect(network.id, container.id)]))
    _, extra = await call.perform(containers.disconnect(call.name, container.id, force=body.force))
    return done(extra, 200)


def _named(container: str) -> str:
    if not container:
        raise InvalidArgument("no container given: the body needs a member Container, a name or an id")
    return container


def _in_use(call: Call, network: Network) -> bool:
    return bool(call.services.controller.endpoints(network=network.id))


ROUTES = [
    get("/networks", list_networks),
    get("/networks/", list_networks),
    get("/networks/{name}", inspect),
    post("/networks/create", create),
    post("/networks/prune", prune),
    post("/networks/{name}/connect", connect),
    post("/networks/{name}/disconnect", disconnect),
    delete("/networks/{name}", remove),
]
