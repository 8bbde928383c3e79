"""/exec: further processes in a running container."""

from __future__ import annotations

from aiohttp import web

from netplug.api import container_views, shapes
from netplug.api.call import Call, done, reply
from netplug.api.hijack import STDERR, STDOUT, Hijacked, pump, take_over
from netplug.api.routes import get, post
from netplug.api.streams import dimensions
from netplug.errors import InvalidArgument
from netplug.runtime.model import ExecConfig


async def create(call: Call) -> web.Response:
    body = await call.body(shapes.ExecCreate)
    command = (body.cmd,) if isinstance(body.cmd, str) else body.cmd
    if not command:
        raise InvalidArgument("No exec command specified")
    config = ExecConfig(
        command=command,
        environment=body.env,
        working_directory=body.working_dir,
        user=body.user,
        privileged=body.privileged,
        tty=body.tty,
        stdin=body.attach_stdin,
        stdout=body.attach_stdout,
        stderr=body.attach_stderr,
        detach=body.detach,
    )
    containers = call.services.containers
    return reply({"Id": await containers.exec_create(containers.get(call.name).id, config)}, 201)


async def start(call: Call) -> web.StreamResponse:
    """Detached: an answer at once. Else the connection carries the process's streams, and ends with it."""
    body = await call.body(shapes.ExecStart)
    containers = call.services.containers
    config = containers.exec_inspect(call.name).config
    session = await containers.exec_start(call.name, tty=config.tty, detach=body.detach)
    if body.detach or session is None:
        if session:
            session.close()
        return done({}, 200)
    try:
        connection = take_over(call, config.tty)
    except BaseException:
        session.close()
        raise
    outputs = frozenset(stream for stream, wanted in ((STDOUT, config.stdout), (STDERR, config.stderr)) if wanted)
    call.background.stream(pump(connection, session, tty=config.tty, stdin=config.stdin, outputs=outputs))
    return Hijacked()


async def inspect(call: Call) -> web.Response:
    return reply(container_views.exec_state(call.services.containers.exec_inspect(call.name)))


async def resize(call: Call) -> web.Response:
    height, width = dimensions(call)
    await call.services.containers.exec_resize(call.name, height, width)
    return done({}, 200)


ROUTES = [
    post("/containers/{name}/exec", create),
    post("/exec/{name}/start", start),
    post("/exec/{name}/resize", resize),
    get("/exec/{name}/json", inspect),
]
