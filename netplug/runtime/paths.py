"""Where the runtime keeps its files.

Run directory (gone at reboot): `containers/<id>/` OCI bundle, pid files and conmon's sockets, `exits/<id>` exit codes written by conmon,
`runtime/` runc's own state, `mounts/<id>` root file systems. State directory:
`containers/<id>/` log, upper and work of the overlay, hosts, resolv.conf, hostname; `images/<hex>/` unpacked tarballs.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path


@dataclass(frozen=True)
class Paths:
    run: Path
    state: Path

    def create(self) -> None:
        """Make the folders. Images may hold set-uid programs, bundles hold secrets in the environment: only root looks inside."""
        for folder in (self.bundles, self.exits, self.runtime, self.mounts, self.records, self.images):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)

    @cached_property
    def bundles(self) -> Path:
        return self.run / "containers"

    @cached_property
    def exits(self) -> Path:
        return self.run / "exits"

    @cached_property
    def runtime(self) -> Path:
        return self.run / "runtime"

    @cached_property
    def mounts(self) -> Path:
        return self.run / "mounts"

    @cached_property
    def records(self) -> Path:
        return self.state / "containers"

    @cached_property
    def images(self) -> Path:
        return self.state / "images"

    def cgroup(self, container: str) -> str:
        """A cgroup at the top, which the runtime makes and removes: one above all containers would stay for ever.

        The digits say which daemon of the machine it belongs to.
        """
        return f"/netplug-{hashlib.sha256(str(self.run).encode()).hexdigest()[:8]}-{container}"

    def bundle(self, container: str) -> Path:
        return self.bundles / container

    def exit_file(self, container: str) -> Path:
        return self.exits / container

    def mount(self, container: str) -> Path:
        return self.mounts / container

    def record(self, container: str) -> Path:
        return self.records / container

    def log(self, container: str) -> Path:
        return self.record(container) / "log"

    def image(self, identity: str) -> Path:
        return self.images / identity.removeprefix("sha256:")
