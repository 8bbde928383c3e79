"""The two sides of every measurement: netplug and dockerd, each on a host of its own on one LAN, behind one face.

Both speak the Docker API on a unix socket, so a measurement takes an `Engine` and never asks which one it is. Containers on both sides
are one busybox tarball.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from netplug.cli import demo_hosts
from netplug.cli.demo_dockerd import rootfs
from tests.hosts import OUTSIDE_ADDRESS, Api, ApiError, Host, Lan, Namespace

IMAGE = "bench"
IDLE = ["sleep", "1000000"]


class Engine(Protocol):
    """What is measured."""

    name: str
    address: str
    lan: Lan
    api: Api

    @property
    def namespace(self) -> Namespace:
        """The host's."""

    def pids(self) -> dict[str, int]:
        """The processes that are there whatever runs, by their role."""

    def supervisors(self) -> list[int]:
        """The processes that are there once per container."""

    def close(self) -> None: ...


class Netplug:
    """The daemon of this checkout."""

    def __init__(self, lan: Lan, *flags: str, name: str = "netplug", resolv_conf: str | None = None) -> None:
        self.name, self.lan = name, lan
        self.host = Host(lan, *flags, resolv_conf=resolv_conf)
        self.address = self.host.address
        try:
            self.host.start()
            self.api = Api(self.host.socket)
            import_image(self.api)
        except BaseException:
            self.host.close()
            raise

    @property
    def namespace(self) -> Namespace:
        return self.host.namespace

    def pids(self) -> dict[str, int]:
        assert self.host.daemon is not None
        resolver = self.host.resolver_pid()
        return {"daemon": self.host.daemon.pid} | ({"resolver": resolver} if resolver else {})

    def supervisors(self) -> list[int]:
        return sorted(set(self.host.processes()) - set(self.pids().values()))

    def close(self) -> None:
        if self.host.daemon is not None and self.host.daemon.poll() is not None:
            print(f"netplug's daemon ended with {self.host.daemon.returncode}:\n{self.host.said()}", file=sys.stderr)
        self.api.close()
        self.host.close()


class Dockerd:
    """A real dockerd with its own containerd, in a network and mount namespace of its own."""

    name = "dockerd"

    def __init__(self, lan: Lan, *flags: str) -> None:
        self.lan = lan
        self.address = lan.free_address()
        number = self.address.rpartition(".")[2]
        self.hostname = f"peer{number}"
        self.directory = Path(tempfile.mkdtemp(prefix="np"))
        self.cgroup = f"/np-bench-{os.getpid()}-{number}"
        self.process: subprocess.Popen[bytes] | None = None
        self.namespace = Namespace(f"{lan.label}-dockerd{number}")
        try:
            lan.plug(self.namespace, self.hostname, self.address)
            self.namespace.ip("route", "add", "default", "via", OUTSIDE_ADDRESS)
            self._start(flags)
            self.api = Api(self.directory / "sock")
            import_image(self.api)
        except BaseException:
            self.close()
            raise

    def _start(self, flags: Sequence[str]) -> None:
        # dockerd writes its key to /etc/docker and containerd a plugin folder to /opt: neither may reach the machine's own.
        script = 'hostname "$0"; mount -t tmpfs tmpfs /opt && { [ ! -d /etc/docker ] || mount -t tmpfs tmpfs /etc/docker; } && exec "$@"'
        enter = ["unshare", "--mount", "--uts", "--propagation", "private", "sh", "-c", script, self.hostname]
        here = str(self.directory)
        places = ["--data-root", f"{here}/data", "--exec-root", f"{here}/exec", "--pidfile", f"{here}/pid", "--host", f"unix://{here}/sock"]
        rest = ["--containerd", "", "--storage-driver", "overlay2", "--cgroup-parent", self.cgroup, *flags]
        with (self.directory / "log").open("wb") as log:
            self.process = subprocess.Popen(
                self.namespace.argv(*enter, "dockerd", *places, *rest), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._await_ready(time.monotonic() + 60)

    def _await_ready(self, deadline: float) -> None:
        """dockerd tells systemd only; elsewhere its socket is asked again and again."""
        assert self.process is not None
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError, ApiError), contextlib.closing(Api(self.directory / "sock", timeout=5)) as api:
                api.call("GET", "/_ping")
                return
            time.sleep(0.05)
        raise RuntimeError(f"dockerd did not start: {(self.directory / 'log').read_text()[-2000:]}")

    def pids(self) -> dict[str, int]:
        assert self.process is not None
        containerd = [pid for pid in self._processes() if Path(f"/proc/{pid}/comm").read_text() == "containerd\n"]
        return {"dockerd": self.process.pid} | ({"containerd": containerd[0]} if containerd else {})

    def supervisors(self) -> list[int]:
        return sorted(set(self._processes()) - set(self.pids().values()))

    def _processes(self) -> list[int]:
        return demo_hosts.owned_processes(self.namespace.path, self.directory)

    def close(self) -> None:
        if self.process is not None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(60)
            demo_hosts.end_processes([self.process.pid, *self._processes()])
            self.process.wait()
        self.namespace.remove()
        demo_hosts.remove_tree(self.directory)
        for hierarchy in ("/sys/fs/cgroup", *map(str, Path("/sys/fs/cgroup").glob("*/"))):
            with contextlib.suppress(OSError):
                os.rmdir(f"{hierarchy}{self.cgroup}")


def import_image(api: Api) -> None:
    api.call("POST", f"/images/create?fromSrc=-&repo={IMAGE}&tag=latest", rootfs(), content_type="application/x-tar")


# Shapes of the Docker API that several measurements use


def create_network(api: Api, name: str, subnet: str = "", driver: str = "bridge") -> None:
    body: dict[str, Any] = {"Name": name, "Driver": driver}
    if subnet:
        body["IPAM"] = {"Config": [{"Subnet": subnet}]}
    api.call("POST", "/networks/create", body)


def create_container(api: Api, name: str, network: str, *, ports: dict[int, int] | None = None, command: list[str] | None = None) -> None:
    """`ports`: container port -> host port, TCP."""
    bindings = {f"{inner}/tcp": [{"HostPort": str(outer)}] for inner, outer in (ports or {}).items()}
    body = {
        "Image": IMAGE,
        "Cmd": command or IDLE,
        "ExposedPorts": {port: {} for port in bindings},
        "HostConfig": {"NetworkMode": network, "PortBindings": bindings},
        "NetworkingConfig": {"EndpointsConfig": {network: {}}},
    }
    api.call("POST", f"/containers/create?name={name}", body)


def remove_container(api: Api, name: str) -> None:
    api.call("DELETE", f"/containers/{name}?force=1")


@contextlib.contextmanager
def network(api: Api, name: str, subnet: str = "", driver: str = "bridge") -> Iterator[str]:
    create_network(api, name, subnet, driver)
    try:
        yield name
    finally:
        api.call("DELETE", f"/networks/{name}")


@contextlib.contextmanager
def container(
    api: Api, name: str, network: str, *, ports: dict[int, int] | None = None, command: list[str] | None = None
) -> Iterator[dict[str, Any]]:
    """A running container; yields what inspect says."""
    create_container(api, name, network, ports=ports, command=command)
    try:
        api.call("POST", f"/containers/{name}/start")
        yield api.call("GET", f"/containers/{name}/json")
    finally:
        remove_container(api, name)


def inside(inspected: dict[str, Any], *argv: str) -> list[str]:
    """The command line that runs a command of the machine in a container's network namespace."""
    return ["nsenter", f"--net=/proc/{inspected['State']['Pid']}/ns/net", *argv]


def timed(action: Any, *arguments: Any) -> float:
    """Milliseconds that a call takes."""
    started = time.perf_counter()
    action(*arguments)
    return (time.perf_counter() - started) * 1000
