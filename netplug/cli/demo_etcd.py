"""A real etcd for demos, benchmarks and tests: one member, a machine of its own on the LAN. Needs Debian's etcd-server and etcd-client."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from netplug.cli.demo_hosts import Lan, Namespace, command, remove_host
from netplug.cli.demo_service import start_service

TOOLS = ("etcd", "etcdctl")


class Etcd:
    """Plain, for hosts of this LAN. `store` is what a daemon is given as its --store."""

    def __init__(self, lan: Lan, *, flags: tuple[str, ...] = ()) -> None:
        self.address = lan.free_address()
        self.endpoint = f"{self.address}:2379"
        self.store = f"etcd://{self.endpoint}"
        self.directory = Path(tempfile.mkdtemp(prefix="np"))
        self.process: subprocess.Popen[bytes] | None = None
        self._flags = flags
        self.namespace = Namespace(f"{lan.label}-etcd{self.address.rpartition('.')[2]}")
        try:
            lan.plug(self.namespace, f"etcd{self.address.rpartition('.')[2]}", self.address)
        except BaseException:
            self.close()
            raise

    def start(self, timeout: float = 30) -> None:
        """With the data that it had."""
        client, peer = f"http://{self.endpoint}", f"http://{self.address}:2380"
        argv = ["etcd", "--name", "etcd", "--data-dir", str(self.directory / "data"), "--logger", "zap"]
        argv += ["--listen-client-urls", client, "--advertise-client-urls", client]
        argv += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"etcd={peer}"]
        log = self.directory / "log"
        try:
            self.process = start_service(self.namespace.argv(*argv, *self._flags), self.directory, log, os.environ, timeout)
        except RuntimeError as error:
            raise RuntimeError(f"etcd did not become ready:\n{log.read_text(errors='replace')[-5000:]}") from error

    def stop(self) -> None:
        """By SIGTERM, and by SIGKILL if that does not help."""
        process, self.process = self.process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def ctl(self, *arguments: str) -> str:
        """What etcdctl says."""
        argv = self.namespace.argv("etcdctl", "--endpoints", self.endpoint, *arguments)
        return command(*argv, env=dict(os.environ, ETCDCTL_API="3")).stdout

    def close(self) -> None:
        self.stop()
        remove_host(self.namespace.name, self.directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
