"""The daemon: every room wired together once, and ended cleanly on SIGTERM or SIGINT.

Containers, their networks, names and published ports go on while it is away; the next start agrees with what it finds.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import gc
import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from netplug import __version__, settings
from netplug.addressing import Ipams
from netplug.api import Services, application
from netplug.cluster import Nodes, Routes
from netplug.cluster import settings as cluster_settings
from netplug.controller import Controller, Core
from netplug.controller.admission import Admission
from netplug.controller.cluster import Cluster
from netplug.engines.engine_api import EngineApi
from netplug.engines.reception import Reception
from netplug.engines.server import PluginServer
from netplug.errors import Conflict, InvalidArgument, NetplugError, NotFound
from netplug.kernel import company, descriptors, firewall
from netplug.kernel.executor import Executor
from netplug.kernel.journal import Journal
from netplug.kernel.watch import Watch
from netplug.model import Network
from netplug.observe import preflight
from netplug.registry import Drivers
from netplug.resolver.client import Resolver
from netplug.runtime import oci
from netplug.runtime.containers import Containers
from netplug.runtime.images import Images
from netplug.settings import Settings
from netplug.store.sqlite import SqliteStore

log = logging.getLogger("netplug")

PATIENCE = 2.0
"""Seconds that a start waits for the cluster before it goes on without it."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def run(values: dict[str, Any], reception: Reception | None = None) -> int:
    """Run until told to end; the exit code. `values` are settings by name; `reception` has listened for the engine meanwhile."""
    try:
        chosen = settings.decode(values)
        logging.basicConfig(level=chosen.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
        asyncio.run(_serve(chosen, reception))
    except NetplugError as error:
        print(f"netplug daemon: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"netplug daemon: {error.strerror or error}: {error.filename or ''}".rstrip(": "), file=sys.stderr)
        return 1
    return 0


def explain(values: dict[str, Any]) -> list[str]:
    """The commands that a first start runs, on a host that has nothing of ours yet."""
    chosen = settings.decode(values)

    async def planned() -> list[str]:
        backend = firewall.backend(chosen.backend, accept_mark=chosen.bridge_accept_fwmark)
        lines = backend.explain_base()
        async with _temporary_core(chosen, backend) as core:
            controller = Controller(core)
            plans = [chosen.host_plan()]
            for request in chosen.predefined_networks():
                network = controller.draft_network(request, predefined=True)
                plans.append(core.network_plan(network))
            return lines + controller.explain(plans)

    return asyncio.run(planned())


async def _serve(chosen: Settings, reception: Reception | None) -> None:
    gc.freeze()  # what has been imported stays
    run_dir, state_dir = Path(chosen.run_dir), Path(chosen.state_dir)
    _make_directories(run_dir, state_dir)
    # The store's thread must get its turn soon also while the loop is busy; Python's default is 5 ms.
    sys.setswitchinterval(0.0005)
    descriptors.raised_limit()
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(_locked(run_dir / "lock"))
        _check(chosen)
        plugin = PluginServer(reception)
        stack.push_async_callback(plugin.close)
        if chosen.docker_plugin:
            await plugin.listen(chosen.docker_plugin)
        controller, services = await _start(chosen, run_dir, state_dir, plugin, stack)
        server = application(services)
        await server.start(chosen.socket)
        stack.push_async_callback(server.close)
        log.info("netplug %s listens on %s", __version__, chosen.socket)
        _notify("READY=1")
        _settle_memory()
        await ended.wait()
        controller.ending()
        _notify("STOPPING=1")


async def _start(
    chosen: Settings, run_dir: Path, state_dir: Path, plugin: PluginServer, stack: contextlib.AsyncExitStack
) -> tuple[Controller, Services]:
    underlay = await asyncio.to_thread(cluster_settings.underlay, chosen, run_dir / "netns")  # refused before there is a rule of ours
    store = await SqliteStore.open(state_dir / "netplug.db")
    stack.push_async_callback(store.close)
    journal = Journal(state_dir / "journal.jsonl")
    stack.callback(journal.close)
    backend = firewall.backend(chosen.backend, accept_mark=chosen.bridge_accept_fwmark)
    stack.enter_context(_alone(_is_guest(chosen)))
    backend.start()
    executor = Executor(backend)
    await executor.start()
    stack.push_async_callback(executor.close)
    core = Core(
        store=store,
        executor=executor,
        firewall=backend,
        resolver=Resolver(run_dir, host_resolv_conf=chosen.resolv_conf),
        drivers=Drivers(),
        ipams=Ipams(chosen.address_pools(_identity(state_dir / "id"))),
        journal=journal,
        run_dir=run_dir,
        incarnation=_incarnation(run_dir / "incarnation"),
        ip_forward=chosen.ip_forward,
        resolv_conf=chosen.resolv_conf,
        direct_routing=chosen.allow_direct_routing,
        underlay=underlay,
    )
    core.ipams.get("default")
    if chosen.store:
        shared = cluster_settings.store(chosen)
        stack.push_async_callback(shared.close)
        core.cluster = Cluster(shared, cluster_settings.node(chosen), core.underlay, core.incarnation, Admission(granted=False))
    controller = Controller(core, Watch(), heal=chosen.heal)
    await controller.start(chosen.host_plan(), chosen.predefined_networks())
    stack.push_async_callback(controller.stop)
    if chosen.docker_plugin:
        # Before the cluster is waited for: an engine that starts is held up by what it asks, of this host's own networks too.
        await plugin.serve(controller, store, EngineApi(chosen.docker_host))
        stack.push_async_callback(plugin.close)
    nodes = Nodes(core.cluster, controller, _identity(state_dir / "id")) if core.cluster is not None else None
    if core.cluster is not None and nodes is not None:
        await nodes.start(PATIENCE)
        stack.push_async_callback(nodes.stop)
        routes = Routes(core.cluster, controller)
        routes.start()
        stack.push_async_callback(routes.stop)
    sandboxes = [sandbox.namespace for sandbox in controller.sandboxes() if sandbox.kind != "host"]
    for what in firewall.clean_up_others(chosen.backend, sandboxes):
        log.info("another firewall backend's %s was taken away", what)
    images = Images(store, state_dir)
    containers = Containers(controller, store, images, run_dir, state_dir, chosen)
    await containers.restore()
    stack.push_async_callback(containers.close)
    return controller, Services(
        controller=controller,
        containers=containers,
        images=images,
        journal=journal,
        settings=chosen,
        nodes=nodes,
        version=__version__,
        advise=functools.partial(preflight.advise, resolv_conf=chosen.resolv_conf, room=underlay.room if chosen.store else 0),
    )


@contextlib.asynccontextmanager
async def _temporary_core(chosen: Settings, backend: firewall.Firewall) -> AsyncIterator[Core]:
    """A core that only plans: nothing of it is started, nothing is written."""
    with tempfile.TemporaryDirectory() as folder:
        store = await SqliteStore.open(Path(folder) / "netplug.db")
        journal = Journal(Path(folder) / "journal.jsonl")
        try:
            yield Core(
                store=store,
                executor=Executor(backend),
                firewall=backend,
                resolver=Resolver(Path(folder)),
                drivers=Drivers(),
                ipams=Ipams(chosen.address_pools(_known_identity(Path(chosen.state_dir) / "id") or secrets.token_hex(16))),
                journal=journal,
                run_dir=Path(chosen.run_dir),
                incarnation="",
                ip_forward=chosen.ip_forward,
                resolv_conf=chosen.resolv_conf,
                direct_routing=chosen.allow_direct_routing,
            )
        finally:
            journal.close()
            await store.close()


def _settle_memory() -> None:
    """What is there after the start stays: the collector need not walk it each time."""
    gc.collect()
    gc.freeze()
    gc.enable()


def _make_directories(run_dir: Path, state_dir: Path) -> None:
    for folder in (run_dir, run_dir / "netns", state_dir):
        folder.mkdir(mode=0o700 if folder == state_dir else 0o711, parents=True, exist_ok=True)


def _check(chosen: Settings) -> None:
    """Find out now what would end the daemon only after it has made networks."""
    oci.find(chosen.runtime)
    cluster_settings.check(chosen)
    for driver, options in chosen.default_network_options.items():
        _check_defaults(driver, options)
    folder = Path(chosen.socket).parent
    if not folder.is_dir():
        raise InvalidArgument(f"cannot listen on {chosen.socket}: there is no directory {folder}")


def _check_defaults(driver: str, options: dict[str, str]) -> None:
    """Refuse a `--default-network-opt` that no network could have. A driver that is not there may come later, and is not asked."""
    if Drivers().finder(driver):
        return  # a plugin, which may not be up yet
    try:
        validate = Drivers().get(driver).validate
    except NotFound:
        return
    for name, value in options.items():
        reasons = [_refusal(validate, driver, {name: value}, internal=internal) for internal in (False, True)]
        if all(reasons) and not _refusal(validate, driver, {}, internal=False):
            raise InvalidArgument(f"invalid --default-network-opt {driver}={name}={value}: {reasons[0]}")


def _refusal(validate: Callable[[Network], None], driver: str, options: dict[str, str], *, internal: bool) -> str:
    """Why the driver would not have a network with these options; `""`: it would."""
    try:
        validate(Network(id="0" * 64, name="default", driver=driver, created="", internal=internal, options=options))
    except InvalidArgument as error:
        return str(error)
    except NetplugError:
        return ""  # not for what it was given
    return ""


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One daemon per run directory."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            needed = "a network namespace, a --run-dir and a --state-dir of its own"
            raise Conflict(f"another netplug daemon uses {path.parent}: give this one {needed}") from None
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _alone(guest: bool) -> Iterator[None]:
    """One daemon per network namespace: another one's links carry the same mark, and would be taken away as nobody's.

    A `guest` may come before another one. Anybody there can take the address, so only a process of root's counts. The loop that runs
    lets go of those who look.
    """
    if guest:
        if (holder := company.listener(company.PLACE)) is not None:
            _tolerate(holder)
        yield
        return
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as place:
        try:
            place.bind(company.PLACE)
            place.listen()
        except OSError:
            _tolerate(company.listener(company.PLACE))
            yield
            return
        loop.add_reader(place, company.greet, place)
        try:
            yield
        finally:
            loop.remove_reader(place)


def _is_guest(chosen: Settings) -> bool:
    """One that has nothing of its own in the kernel at first, and puts nothing back: its networks are another daemon's, its plugin."""
    return chosen.backend == "none" and chosen.bridge == "none" and not chosen.heal


def _tolerate(holder: company.Peer | None) -> None:
    """Refuse to start beside another daemon; whoever else has our address is only told of."""
    if holder is not None and holder.uid == 0:
        raise Conflict(
            f"another netplug daemon (pid {holder.pid}) runs in this network namespace, where it has its links and rules:"
            " end it first, or give this one a network namespace of its own"
        )
    who = f"pid {holder.pid} of user {holder.uid}" if holder is not None else "a process that cannot be told"
    log.warning("%s has taken the address @%s, by which daemons know of one another", who, company.PLACE[1:])


def _incarnation(path: Path) -> str:
    """This boot's name: made new when the host, or what the run directory lives on, has started anew."""
    boot = _BOOT_ID.read_text().strip()
    with contextlib.suppress(FileNotFoundError):
        known = path.read_text().strip()
        if known.startswith(boot):
            return known
    return _written(path, f"{boot}.{secrets.token_hex(8)}")


def _identity(path: Path) -> str:
    """This daemon's name for as long as its state directory lives."""
    return _known_identity(path) or _written(path, secrets.token_hex(16))


def _known_identity(path: Path) -> str:
    """`""` before its first start."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""


def _written(path: Path, text: str) -> str:
    temporary = path.with_suffix(".new")
    temporary.write_text(text + "\n")
    temporary.replace(path)
    return text


def _notify(message: str) -> None:
    """sd_notify(3): tell the service manager, if there is one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel, contextlib.suppress(OSError):
        channel.connect("\0" + address[1:] if address.startswith("@") else address)
        channel.sendall(message.encode())
