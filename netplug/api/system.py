"""What clients ask about the daemon itself: _ping, version, info, events."""

from __future__ import annotations

import asyncio
import os
import platform
import socket
import time
from collections import Counter

from aiohttp import web

from netplug.api import eventlog
from netplug.api.call import API_VERSION, JSON, MIN_API_VERSION, Call, json_line, open_stream, plain, reply
from netplug.api.images import architecture
from netplug.api.routes import get, head
from netplug.api.services import Settings
from netplug.api.views import Json
from netplug.registry import Drivers

_UNCACHED = {"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache", "Swarm": "inactive", "Builder-Version": ""}


async def ping(call: Call) -> web.Response:
    return plain("OK", _UNCACHED)


async def version(call: Call) -> web.Response:
    common = {"ApiVersion": API_VERSION, "MinAPIVersion": MIN_API_VERSION, "Os": "linux", "Arch": architecture()}
    common |= {"GitCommit": "", "GoVersion": "", "KernelVersion": platform.release(), "BuildTime": ""}
    details = {**common, "Experimental": "false"}
    engine = {"Name": "Engine", "Version": call.services.version, "Details": details}
    return reply({"Platform": {"Name": "netplug"}, "Components": [engine], "Version": call.services.version, **common})


async def info(call: Call) -> web.Response:
    states = Counter(container.status for container in call.services.containers.all())
    return reply(
        {
            "ID": _machine_id(),
            "Name": socket.gethostname(),
            "ServerVersion": call.services.version,
            "Containers": states.total(),
            "ContainersRunning": states["running"],
            "ContainersPaused": 0,
            "ContainersStopped": states["exited"] + states["created"],
            "Images": len(call.services.images.all()),
            "Driver": "overlay",
            "DriverStatus": [],
            "Plugins": {"Volume": [], "Network": Drivers().names(), "Authorization": None, "Log": ["json-file"]},
            "Swarm": {"LocalNodeState": "inactive", "ControlAvailable": False, "NodeID": "", "NodeAddr": ""},
            "Runtimes": {},
            "DefaultRuntime": "",
            "Warnings": [],
            **_cluster(call.services.settings),
            **_host(),
            **_limits(),
            "DockerRootDir": str(call.services.settings.state_dir),
        }
    )


def _cluster(settings: Settings) -> Json:
    """As Docker said it up to 20.10, for commands that still show it; nothing without a cluster."""
    return {"ClusterStore": settings.store, "ClusterAdvertise": settings.advertise} if settings.store else {}


def _host() -> Json:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "KernelVersion": platform.release(),
        "OperatingSystem": _operating_system(),
        "OSType": "linux",
        "Architecture": platform.machine(),
        "NCPU": os.cpu_count(),
        "MemTotal": memory,
        "SystemTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "CgroupDriver": "cgroupfs",
        "LoggingDriver": "json-file",
        "ExperimentalBuild": False,
        "LiveRestoreEnabled": True,
        "SecurityOptions": [],
        "Labels": [],
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
    }


def _limits() -> Json:
    """Nothing limits a container here, and clients may know: each is warned of at create."""
    limits = (
        "MemoryLimit",
        "SwapLimit",
        "KernelMemory",
        "CpuCfsPeriod",
        "CpuCfsQuota",
        "CPUShares",
        "CPUSet",
        "PidsLimit",
        "OomKillDisable",
    )
    return {**dict.fromkeys(limits, False), "IPv4Forwarding": True, "BridgeNfIptables": True, "BridgeNfIp6tables": True}


def _machine_id() -> str:
    try:
        with open("/etc/machine-id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return socket.gethostname()


def _operating_system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"


async def events(call: Call) -> web.StreamResponse:
    """What was since `since`, then what comes, up to `until`: JSON, one a line."""
    since, until = call.moment("since"), call.moment("until")
    wanted = call.filters(eventlog.KEYS)
    with call.events.listen() as listener:
        past = call.events.past(since, until or time.time()) if since else []
        response = await open_stream(call, JSON)
        for message in past:
            if eventlog.wanted(message, wanted):
                await response.write(json_line(message))
        try:
            async with asyncio.timeout(max(0.0, until - time.time()) if until else None):
                while (coming := await listener.get()) is not None:
                    if eventlog.wanted(coming, wanted):
                        await response.write(json_line(coming))
        except TimeoutError:
            pass
    return response


ROUTES = [
    get("/_ping", ping),
    head("/_ping", ping),
    get("/version", version),
    get("/info", info),
    get("/events", events, streams=True),
]
