"""A runtime on folders of its own, and the proof that nothing of it stays behind.

Folders lie directly in /tmp: a unix socket's path has room for 107 bytes. Tests use the `host` image's busybox.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from netplug.runtime import mounts
from netplug.runtime.containers import Containers
from netplug.runtime.images import Images
from netplug.runtime.model import Container, ContainerConfig
from netplug.runtime.paths import Paths
from netplug.settings import Settings
from netplug.store.sqlite import SqliteStore
from tests.kernel.fake_controller import FakeController

BUSYBOX = "/bin/busybox"


class Lab:
    """`start` and `stop` are a daemon's; containers stay in between."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run, self.state = folder / "run", folder / "state"
        for path in (self.run, self.state):
            path.mkdir(exist_ok=True)
        self.resolv_conf = folder / "resolv.conf"
        self.resolv_conf.write_text("search example.net\nnameserver 127.0.0.53\nnameserver 192.0.2.53\noptions edns0\n")
        self.settings = Settings(run_dir=str(self.run), state_dir=str(self.state), resolv_conf=str(self.resolv_conf))
        self.paths = Paths(self.run, self.state)

    async def start(self) -> Containers:
        self.store = await SqliteStore.open(self.state / "netplug.db")
        self.controller = FakeController(self.run)
        self.images = Images(self.store, self.state)
        self.containers = Containers(self.controller, self.store, self.images, self.run, self.state, self.settings)
        await self.containers.restore()
        return self.containers

    async def stop(self) -> None:
        await self.containers.close()
        await self.store.close()

    async def restart(self) -> Containers:
        await self.stop()
        return await self.start()

    async def running(self, *command: str, name: str = "", mode: str = "none", **options: object) -> Container:
        """A started container from the host image."""
        container = await self.containers.create(name, shell(*command, network_mode=mode, **options))
        await self.containers.start(container.id)
        return self.containers.get(container.id)

    async def output(self, reference: str) -> str:
        """What a container has written until now."""
        pieces = [text async for _, text in self.containers.logs(reference)]
        return b"".join(pieces).decode()

    async def said(self, reference: str, text: str) -> str:
        """Wait until it has written this."""
        seen = ""
        async with asyncio.timeout(10):
            async for _, piece in self.containers.logs(reference, follow=True):
                seen += piece.decode()
                if text in seen:
                    return seen
        raise AssertionError(f"it only said {seen!r}")

    def leftovers(self) -> list[str]:
        """What is still there of this lab's containers: mounts, cgroups, processes, namespaces, files."""
        found = [f"mount {point}" for point in mounts.at_or_below(self.folder)]
        found += [f"cgroup {path}" for path in Path("/sys/fs/cgroup").glob(f"*{self.paths.cgroup('*')}")]
        found += [f"process {pid}" for pid in self.processes()]
        found += [f"file {path}" for folder in ("netns", "mounts", "containers", "exits", "attach", "runtime") for path in self._in(folder)]
        return found

    def processes(self) -> list[int]:
        """Those whose command line or cgroup is ours."""
        found = []
        for entry in filter(str.isdecimal, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{entry}/cmdline").read_bytes()
                cgroup = Path(f"/proc/{entry}/cgroup").read_text()
                state = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[0]
                # A zombie has ended: it waits for the machine's init.
                if state != "Z" and (os.fsencode(self.folder) in line or self.paths.cgroup("") in cgroup):
                    found.append(int(entry))
        return [pid for pid in found if pid != os.getpid()]

    def _in(self, folder: str) -> list[Path]:
        path = self.run / folder
        return list(path.iterdir()) if path.exists() else []


def shell(*command: str, **options: object) -> ContainerConfig:
    """A script for busybox's sh, or several words for busybox itself."""
    words = ("sh", "-c", *command) if len(command) == 1 else command
    fields: dict[str, object] = {"image": "host", "network_mode": "none", "entrypoint": (BUSYBOX,), "command": words, **options}
    return ContainerConfig(**fields)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def laboratory() -> AsyncIterator[Lab]:
    """A running runtime. Afterwards every container is removed, and it is proven that nothing is left."""
    folder = Path(tempfile.mkdtemp(prefix=f"r{os.getpid() % 10000}-", dir="/tmp"))
    lab = Lab(folder)
    try:
        await lab.start()
        yield lab
        async with asyncio.timeout(30):
            for container in lab.containers.all():
                with contextlib.suppress(LookupError):
                    await lab.containers.remove(container.id, force=True)
            await lab.stop()
        assert lab.leftovers() == []
        assert list(lab.paths.records.iterdir()) == []
    finally:
        sweep(lab)


def sweep(lab: Lab) -> None:
    """Whatever a failed test left."""
    for pid in lab.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for entry in lab._in("runtime"):
        subprocess.run(["runc", "--root", str(lab.run / "runtime"), "delete", "--force", entry.name], check=False, timeout=10)
    for point in sorted(mounts.at_or_below(lab.folder), key=len, reverse=True):
        subprocess.run(["umount", "--lazy", point], check=False, timeout=10)
    for folder in Path("/sys/fs/cgroup").glob(f"*{lab.paths.cgroup('*')}"):
        folder.rmdir()
    if not mounts.at_or_below(lab.folder):
        shutil.rmtree(lab.folder)
