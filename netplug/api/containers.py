"""/containers: list, inspect, create, and the steps of a container's life. Its streams are in `streams`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, cast, get_args

from aiohttp import web

from netplug.api import container_views, decode, dryrun, filters, shapes
from netplug.api.call import JSON, Call, done, json_line, open_stream, planned, reply
from netplug.api.decode_container import container_config
from netplug.api.routes import delete, get, post
from netplug.api.services import WaitCondition
from netplug.errors import InvalidArgument, NetplugError, NotFound
from netplug.runtime.model import Container, ExitStatus


async def list_containers(call: Call) -> web.Response:
    """Running ones, or all with `all`, with `limit`, and where a filter speaks of those that do not run."""
    services = call.services
    wanted = call.filters(filters.CONTAINER_KEYS)
    limit = call.number("limit") or 0
    everything = call.flag("all") or limit > 0 or "status" in wanted or "exited" in wanted
    found = [container for container in services.containers.all() if everything or container.status == "running"]
    found = filters.containers(
        found,
        wanted,
        lambda container: container_views.network_references(services, container),
        lambda container: container_views.host_ports(services, container),
        services.containers.get,
    )
    found.sort(key=lambda container: container.created, reverse=True)
    return reply([container_views.line(services, container) for container in (found[:limit] if limit > 0 else found)])


async def inspect(call: Call) -> web.Response:
    return reply(container_views.inspect(call.services, call.services.containers.get(call.name)))


async def create(call: Call) -> web.Response:
    services = call.services
    raw = await call.raw()
    config, warnings = container_config(decode.convert(raw, shapes.ContainerCreate), raw, services)
    name = call.query.get("name", "").removeprefix("/")
    if call.dry_run:
        return planned(await services.containers.plan_start(config, name), {"Id": "", "Warnings": warnings}, 201)
    container, extra = await call.perform(services.containers.create(name, config))
    return reply({"Id": container.id, "Warnings": warnings, **extra}, 201)


async def start(call: Call) -> web.Response:
    containers = call.services.containers
    container = containers.get(call.name)
    if container.status == "running":
        return done({}, 304)
    if call.dry_run:
        return planned(await containers.plan_start(container.config, container.name))
    _, extra = await call.perform(containers.start(container.id))
    return done(extra)


async def stop(call: Call) -> web.Response:
    containers = call.services.containers
    container = containers.get(call.name)
    if call.query.get("signal"):
        raise InvalidArgument("stopping with another signal is not supported: set it with --stop-signal, or send it with kill")
    if container.status != "running":
        return done({}, 304)
    if call.dry_run:
        return planned(await dryrun.stopped(call.services, container))
    return done(await _ended(call, container, containers.stop(container.id, call.number("t"))))


async def kill(call: Call) -> web.Response:
    """A signal that the process may survive: what a dry run shows is what happens if it does not."""
    containers = call.services.containers
    try:
        container = containers.get(call.name)
    except NotFound as error:
        raise NotFound(f"Cannot kill container: {call.name}: {error}") from None
    if call.dry_run:
        return planned(await dryrun.killed(call.services, container))
    return done(await _ended(call, container, containers.kill(call.name, call.query.get("signal") or "SIGKILL")))


async def remove(call: Call) -> web.Response:
    containers = call.services.containers
    if call.flag("link"):
        raise InvalidArgument("removing a link of a container is not supported: remove the container")
    container = containers.get(call.name)
    if call.dry_run:
        return planned(await dryrun.removed(call.services, container, call.flag("force")))
    return done(await _ended(call, container, containers.remove(container.id, force=call.flag("force"), volumes=call.flag("v"))))


async def _ended(call: Call, container: Container, change: Awaitable[None]) -> dict[str, Any]:
    """Perform what ends a container; what to explain is known before, since whoever watches the container takes its network away."""
    lines = await dryrun.stopped(call.services, container) if call.explain else []
    await change
    survived = any(one.id == container.id and one.status == "running" for one in call.services.containers.all())
    return {"Explain": [] if survived else lines} if call.explain else {}


async def wait(call: Call) -> web.StreamResponse:
    """The headers go out when the wait has begun: the docker command starts the container only after it has seen them."""
    containers = call.services.containers
    container = containers.get(call.name)
    waiting = asyncio.ensure_future(containers.wait(container.id, _condition(call)))
    try:
        response = await open_stream(call, JSON)
        await response.write(json_line(await _exit(waiting)))
    finally:
        waiting.cancel()
    return response


async def _exit(waiting: asyncio.Future[ExitStatus]) -> dict[str, object]:
    """The answer's body; the headers have said 200 already, so that a failure is a member of it."""
    try:
        status = await waiting
    except NetplugError as error:
        return {"StatusCode": 125, "Error": {"Message": str(error)}}
    return {"StatusCode": status.code, **({"Error": {"Message": status.error}} if status.error else {})}


def _condition(call: Call) -> WaitCondition:
    condition = call.query.get("condition") or "not-running"
    if condition not in get_args(WaitCondition):
        raise InvalidArgument(f'invalid condition: "{condition}"')
    return cast(WaitCondition, condition)


ROUTES = [
    get("/containers/json", list_containers),
    get("/containers/{name}/json", inspect),
    post("/containers/create", create),
    post("/containers/{name}/start", start),
    post("/containers/{name}/stop", stop),
    post("/containers/{name}/kill", kill),
    post("/containers/{name}/wait", wait, changes=False, streams=True),
    delete("/containers/{name}", remove),
]
