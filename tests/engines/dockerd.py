"""A netplug daemon and a real dockerd side by side on one host, in a mount namespace of their own: /run/docker is theirs alone.

What the machine has in /run/docker, /etc/docker and /opt is hidden from them. `Pair.docker(…)` runs the docker command against dockerd.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from netplug.cli import demo_hosts
from netplug.cli.demo_service import start_service
from tests.bench.engines import rootfs
from tests.hosts import Api, ApiError, Host, Lan, command

PLUGIN = "/run/docker/plugins/netplug.sock"
IMAGE = "bench"
DOCKER = "/usr/bin/docker"
"""The command of the same version: a newer one asks for things that this dockerd does not know."""


class Pair(Host):
    """A host with both daemons. `start` brings up netplug, `start_dockerd` the other."""

    def __init__(self, lan: Lan, *flags: str, resolv_conf: str | None = "nameserver 127.0.0.1\n") -> None:
        self.dockerd: subprocess.Popen[bytes] | None = None
        self._anchor: subprocess.Popen[bytes] | None = None
        self.held: socket.socket | None = None
        super().__init__(lan, *flags, resolv_conf=resolv_conf)
        self.docker_directory = self.directory / "d"
        self.docker_directory.mkdir()
        self.docker_socket = self.docker_directory / "sock"
        self.docker_log = self.directory / "dockerd.log"
        self.cgroup = f"/np-docker-{os.getpid()}-{self.address.rpartition('.')[2]}"
        self.flags = (*self.flags, "--docker-plugin", PLUGIN, "--docker-host", f"unix://{self.docker_socket}")
        try:
            self._anchor = self._mounts()
        except BaseException:
            self.close()
            raise

    def _mounts(self) -> subprocess.Popen[bytes]:
        """A process that keeps the mount namespace: daemons come and go in it."""
        hide = "for folder in /run/docker /etc/docker /opt; do [ ! -d $folder ] || mount -t tmpfs tmpfs $folder; done"
        script = f'hostname "$0"; mkdir -p /run/docker; {hide}; echo ready; exec sleep infinity'
        argv = ["unshare", "--mount", "--uts", "--propagation", "private", "sh", "-c", script, self.namespace.name[-12:]]
        anchor = subprocess.Popen(self.namespace.argv(*argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert anchor.stdout is not None
        assert anchor.stdout.readline() == b"ready\n"
        return anchor

    def argv(self, *argv: str) -> list[str]:
        if self._anchor is None:
            return super().argv(*argv)
        here = str(self._anchor.pid)
        return ["nsenter", "--target", here, "--mount", "--uts", f"--net={self.namespace.path}", f"--wd={self.directory}", *argv]

    def start(self, *flags: str, timeout: float = 20) -> None:
        directories = ["--socket", str(self.socket), "--state-dir", str(self.state_directory), "--run-dir", str(self.run_directory)]
        argv = self.argv(sys.executable, "-m", "netplug.cli", "daemon", *directories, *self.flags, *flags)
        held = () if self.held is None else (self.held.fileno(),)
        for descriptor in held:
            given = f'LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=docker-plugin exec "$@" 3<&{descriptor}'
            argv = ["bash", "-c", given, "bash", *argv]
        try:
            self.daemon = start_service(argv, self.directory, self.log, self.environment, timeout, held)
        except RuntimeError as error:
            raise RuntimeError(f"the daemon did not become ready:\n{self.said()}") from error

    def hold(self) -> socket.socket:
        """Listen in netplug's place, as a service manager does, from its next start on."""
        path = Path(self.seen(PLUGIN))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self.held = socket.socket(socket.AF_UNIX)
        self.held.bind(str(path))
        self.held.listen()
        return self.held

    def release(self) -> None:
        """The opposite."""
        assert self.held is not None
        self.held.close()
        self.held = None
        Path(self.seen(PLUGIN)).unlink()

    def seen(self, path: str) -> str:
        """A path of the daemons' mount namespace, as this process finds it."""
        assert self._anchor is not None
        return f"/proc/{self._anchor.pid}/root{path}"

    # dockerd

    def start_dockerd(self, *flags: str, ready: bool = True) -> None:
        here = str(self.docker_directory)
        places = ["--data-root", f"{here}/data", "--exec-root", f"{here}/exec", "--pidfile", f"{here}/pid", "--host", f"unix://{here}/sock"]
        rest = ["--containerd", "", "--storage-driver", "overlay2", "--cgroup-parent", self.cgroup, *flags]
        with self.docker_log.open("ab") as log:
            self.dockerd = subprocess.Popen(self.argv("dockerd", *places, *rest), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if ready:
            self.await_dockerd()

    def await_dockerd(self, timeout: float = 60) -> None:
        assert self.dockerd is not None
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self.dockerd.poll() is None:
            with contextlib.suppress(OSError, ApiError), contextlib.closing(Api(self.docker_socket, timeout=5)) as api:
                api.call("GET", "/_ping")
                return
            time.sleep(0.05)
        raise RuntimeError(f"dockerd did not start: {self.docker_said()}")

    def docker_said(self) -> str:
        return self.docker_log.read_text(errors="replace")[-5000:] if self.docker_log.exists() else ""

    def stop_dockerd(self) -> None:
        if self.dockerd is not None:
            self.dockerd.terminate()
            self.dockerd.wait(60)
            self.dockerd = None

    def kill_dockerd(self) -> None:
        """It dies without a word, and its containerd with it (PDEATHSIG). Containers go on."""
        assert self.dockerd is not None
        self.dockerd.kill()
        self.dockerd.wait()
        self.dockerd = None
        # Whether the dead containerd is reaped is up to the machine's first process; the next dockerd would wait for it.
        (self.docker_directory / "exec/containerd/containerd.pid").unlink(missing_ok=True)

    def forget_networks(self) -> None:
        """What a dockerd that does not run would know of networks and containers is lost, and its containers are."""
        assert self.dockerd is None
        demo_hosts.end_processes(self.docker_processes())
        for folder in ("network", "containers"):
            demo_hosts.remove_tree(self.docker_directory / "data" / folder)

    def docker_processes(self) -> list[int]:
        return demo_hosts.owned_processes(self.namespace.path, self.docker_directory)

    def import_image(self) -> None:
        with contextlib.closing(Api(self.docker_socket)) as api:
            api.call("POST", f"/images/create?fromSrc=-&repo={IMAGE}", rootfs(), content_type="application/x-tar")

    def docker(self, *arguments: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        environment = dict(self.environment, DOCKER_HOST=f"unix://{self.docker_socket}")
        return command(*self.argv(DOCKER, *arguments), check=check, timeout=timeout, env=environment)

    def run_container(self, name: str, *options: str, argv: Sequence[str] = ("sleep", "1000000")) -> str:
        """The id of a container that runs in the background."""
        return self.docker("run", "--detach", "--stop-signal", "KILL", "--name", name, *options, IMAGE, *argv).stdout.strip()

    def inspect(self, name: str) -> dict[str, Any]:
        return dict(json.loads(self.docker("inspect", name).stdout)[0])

    def docker_address(self, name: str, network: str) -> str:
        return str(self.inspect(name)["NetworkSettings"]["Networks"][network]["IPAddress"])

    def docker_exec(self, name: str, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.docker("exec", name, *argv, check=check)

    def inside(self, reference: str, *argv: str, check: bool = True, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        """The namespaces of our containers are mounted where only the daemons see them."""
        return command(*self.argv("nsenter", f"--net={self.sandbox(reference)}", *argv), check=check, timeout=timeout)

    def clean(self) -> None:
        """Away with containers and networks, of both; both daemons run."""
        if names := self.docker("ps", "--all", "--quiet").stdout.split():
            self.docker("rm", "--force", *names)
        if names := self.docker("network", "ls", "--quiet", "--filter", "type=custom").stdout.split():
            self.docker("network", "rm", *names)
        for container in self.api("GET", "/containers/json?all=1"):
            self.api("DELETE", f"/containers/{container['Id']}?force=1")
        for network in self.api("GET", "/networks"):
            if network["Name"] not in ("bridge", "host", "none", "netplug_gwbridge"):
                self.api("DELETE", f"/networks/{network['Id']}")

    def endpoints(self, network: str) -> dict[str, Any]:
        """What netplug says is on the network, by name of the container."""
        found = self.api("GET", f"/networks/{network}")["Containers"] or {}
        return {one["Name"]: one for one in found.values()}

    def network_name(self, reference: str) -> str:
        return str(self.api("GET", f"/networks/{reference}")["Name"])

    def only_network(self) -> str:
        """The name of the one that is not predefined."""
        (name,) = (one["Name"] for one in self.api("GET", "/networks") if one["Name"] not in ("bridge", "host", "none", "netplug_gwbridge"))
        return str(name)

    def ports(self, network: str) -> list[int]:
        """Host ports that lead to containers of the network, by the records."""
        return [port["host_port"] for port in self.records("endpoints/") if port["network"] == network for port in port.get("ports", ())]

    def records(self, prefix: str) -> list[dict[str, Any]]:
        """What the daemon's store has below that prefix."""
        with contextlib.closing(sqlite3.connect(f"file:{self.state_directory}/netplug.db?mode=ro", uri=True)) as store:
            rows = store.execute("select value from kv where key like ? order by key", (f"/netplug/v1/{prefix}%",)).fetchall()
        return [json.loads(value) if value else {} for (value,) in rows]

    def leftovers(self) -> dict[str, list[str]]:
        """Networks, and pools that are held."""
        networks = sorted(network["Name"] for network in self.api("GET", "/networks"))
        return {"networks": networks, "pools": [pool["subnet"] for pool in self.records("leased-pools/")]}

    def until(self, condition: Callable[[], Any], timeout: float = 20) -> Any:
        """What the condition gives once that is true."""
        deadline = time.monotonic() + timeout
        while not (found := condition()):
            assert time.monotonic() < deadline, "it did not come to be"
            time.sleep(0.05)
        return found

    def close(self) -> None:
        if self.held is not None:
            self.held.close()
        if self.dockerd is not None:
            self.dockerd.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.dockerd.wait(60)
            demo_hosts.end_processes([self.dockerd.pid, *self.docker_processes()])
            self.dockerd.wait()
        elif hasattr(self, "docker_directory"):
            demo_hosts.end_processes(self.docker_processes())
        if self._anchor is not None:
            self._anchor.kill()
            self._anchor.wait()
            assert self._anchor.stdout is not None
            self._anchor.stdout.close()
            self._anchor = None
        super().close()
        if hasattr(self, "cgroup"):
            for hierarchy in ("/sys/fs/cgroup", *map(str, Path("/sys/fs/cgroup").glob("*/"))):
                with contextlib.suppress(OSError):
                    os.rmdir(f"{hierarchy}{self.cgroup}")
