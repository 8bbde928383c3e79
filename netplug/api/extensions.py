"""/netplug: what Docker's API has no place for. The journal, who has which address, routes, preflight, doctor, the tests' fault points."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import msgspec
from aiohttp import web

from netplug import faults
from netplug.api import decode, ports
from netplug.api.call import Call, done, json_line, open_stream, reply
from netplug.api.routes import get, post
from netplug.api.services import JournalEntry
from netplug.api.views import Json
from netplug.controller.doctor import Difference
from netplug.controller.requests import PoolUsage
from netplug.errors import Ambiguous, Conflict, InvalidArgument, NotFound
from netplug.model import Network, PortBinding, Sandbox
from netplug.observe import preflight
from netplug.observe.situation import Situation, Wanted
from netplug.settings import Settings

NDJSON = "application/x-ndjson"


async def journal(call: Call) -> web.StreamResponse:
    """The newest entries, oldest first: a list, or with `follow` one a line and the coming ones behind them."""
    limit = call.number("limit")
    entries = call.services.journal.entries(limit) if limit is not None else call.services.journal.entries()
    if not call.flag("follow"):
        return reply([_entry(call, entry) for entry in entries])
    coming: asyncio.Queue[JournalEntry] = asyncio.Queue()
    unsubscribe = call.services.journal.subscribe(coming.put_nowait)
    try:
        response = await open_stream(call, NDJSON)
        for entry in entries:
            await response.write(json_line(_entry(call, entry)))
        while True:
            await response.write(json_line(_entry(call, await coming.get())))
    finally:
        unsubscribe()


def _entry(call: Call, entry: JournalEntry) -> Json:
    return {
        "time": entry.time,
        "action": entry.action,
        "subject": entry.subject,
        "by": entry.by,
        "commands": call.services.controller.explain([entry.steps]),
        "error": entry.error,
    }


async def ipam(call: Call) -> web.Response:
    return reply(_pools(call, call.services.controller.network(call.name)))


async def all_ipam(call: Call) -> web.Response:
    return reply([_pools(call, network) for network in call.services.controller.networks() if network.pools])


def _pools(call: Call, network: Network) -> Json:
    return {"Network": network.name, "Pools": [_pool(usage) for usage in call.services.controller.pool_usage(network)]}


def _pool(usage: PoolUsage) -> Json:
    return {
        "Subnet": usage.pool.subnet,
        "IPRange": usage.pool.ip_range,
        "Gateway": usage.pool.gateway,
        "Capacity": usage.capacity,
        "Taken": [{"Address": taken.address, "Kind": taken.kind, "Owner": taken.owner, "Since": taken.since} for taken in usage.taken],
    }


async def routes(call: Call) -> web.Response:
    """Ways to the networks that other nodes publish."""
    nodes = call.services.nodes
    return reply(
        [
            {
                "Destination": way.subnet,
                "Via": way.via,
                "Link": way.link,
                "Node": way.node,
                "Network": way.network,
                "Status": way.status,
                "Alive": nodes is not None and nodes.lives(way.node),
            }
            for way in call.services.controller.ways()
        ]
    )


async def look(call: Call) -> web.Response:
    """Preflight, with what the caller means to make."""
    body = decode.parse(await call.http.read()) if call.http.method == "POST" else {}
    try:
        wanted = msgspec.convert(body, Wanted)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid JSON: {error}") from None
    return reply(await asyncio.to_thread(preflight.run, _situation(call, wanted)))


def _situation(call: Call, wanted: Wanted) -> Situation:
    services = call.services
    settings = services.settings
    if not isinstance(settings, Settings):
        raise NotFound("page not found")
    endpoints = services.controller.endpoints()
    return Situation(
        settings=settings,
        wanted=wanted,
        pid=os.getpid(),
        networks=tuple(services.controller.networks()),
        published=tuple((endpoint.container_name, port) for endpoint in endpoints for port in endpoint.ports),
        waiting=tuple(_waiting(call)),
        endpoints=len(endpoints),
    )


def _waiting(call: Call) -> Iterator[tuple[str, PortBinding]]:
    """Ports that containers will want when they are started."""
    for container in call.services.containers.all():
        if container.status != "running":
            yield from ((container.name, port) for port in container.config.ports)


async def examine(call: Call) -> web.Response:
    """How kernel, resolver and store differ from the records."""
    return reply([_difference(found) for found in await call.services.controller.examine()])


async def treat(call: Call) -> web.Response:
    """Put right how they differ; `Error` says why something is as it was."""
    treated = await call.services.controller.treat()
    return reply([{**_difference(one.difference), "Repaired": not one.error, "Error": one.error} for one in treated])


def _difference(found: Difference) -> Json:
    return {"Subject": found.subject, "Found": found.found, "Meaning": found.meaning, "Repair": list(found.repair)}


async def explain(call: Call) -> web.Response:
    """The commands that build a running container's endpoints, or with `network` that one, as they are now."""
    controller = call.services.controller
    identity = _sandbox_of(call)
    if controller.sandbox(identity) is None:
        raise Conflict(f"container {call.name} has no network to explain: it is not running, or has another container's")
    return reply(controller.explain([controller.plan_existing(identity, call.query.get("network", ""))]))


def _sandbox_of(call: Call) -> str:
    try:
        return call.services.containers.get(call.name).id
    except NotFound:
        return engined(call).id


async def engine_container(call: Call) -> web.Response:
    """A container of another engine that is on networks of ours: by name, or by (the beginning of) that engine's id."""
    found = engined(call)
    endpoints = call.services.controller.endpoints(sandbox=found.id)
    return reply(
        {
            "Id": found.container,
            "Name": found.name,
            "Engine": found.engine,
            "Ports": ports.as_map(port for endpoint in endpoints for port in endpoint.ports),
        }
    )


def engined(call: Call) -> Sandbox:
    """The sandbox of another engine's container that the path names."""
    sandboxes = [sandbox for sandbox in call.services.controller.sandboxes() if sandbox.engine]
    found = [one for one in sandboxes if one.name == call.name or one.container == call.name]
    found = found or [one for one in sandboxes if call.name and one.container.startswith(call.name)]
    if len(found) != 1:
        raise NotFound(f"No such container: {call.name}") if not found else Ambiguous(f"{call.name} fits {len(found)} containers")
    return found[0]


async def healing(call: Call) -> web.Response:
    """What was put back of what others took away, and what is left alone for now."""
    healed, suspended = call.services.controller.healing()
    return reply({"healed": healed, "suspended": suspended})


async def arm(call: Call) -> web.Response:
    """The daemon dies at the `at`-th fault point from now."""
    _need_faults()
    count = call.number("at")
    if count is None or count < 0:
        raise InvalidArgument("invalid value for at: give the number of the fault point to die at, 0 for none")
    faults.arm(count)
    return done({})


async def fault_points(call: Call) -> web.Response:
    _need_faults()
    return reply({"left": faults.left(), "passed": faults.passed})


def _need_faults() -> None:
    if not faults.enabled:
        raise NotFound("page not found")


ROUTES = [
    get("/netplug/journal", journal, streams=True),
    get("/netplug/ipam", all_ipam),
    get("/netplug/ipam/{name}", ipam),
    get("/netplug/routes", routes),
    get("/netplug/preflight", look),
    post("/netplug/preflight", look, changes=False),
    get("/netplug/engines/containers/{name}", engine_container),
    get("/netplug/healing", healing),
    get("/netplug/doctor", examine),
    post("/netplug/doctor", treat),
    get("/netplug/explain/{name}", explain),
    get("/netplug/faults", fault_points),
    post("/netplug/faults", arm),
]
