"""What tests want to know of a host with a netplug daemon and a dockerd (`netplug.cli.demo_dockerd`)."""

from __future__ import annotations

import contextlib
import json
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from netplug.cli import demo_hosts
from netplug.cli.demo_dockerd import PLUGIN, DockerHost
from netplug.cli.demo_service import start_service
from netplug.cli.install import AWAY, away
from tests.hosts import Host, command

IMAGE = "bench"
FIREWALLS = ("iptables", "ip6tables")


class Pair(DockerHost, Host):
    """The two daemons. `held`: the plugin's socket, where this process listens at it in netplug's place."""

    held: socket.socket | None = None

    def start(self, *flags: str, timeout: float = 20) -> None:
        if self.held is None:
            super().start(*flags, timeout=timeout)
            return
        directories = ["--socket", str(self.socket), "--state-dir", str(self.state_directory), "--run-dir", str(self.run_directory)]
        argv = self.argv(sys.executable, "-m", "netplug.cli", "daemon", *directories, *self.flags, *flags)
        given = f'LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=docker-plugin exec "$@" 3<&{self.held.fileno()}'
        held = (self.held.fileno(),)
        self.daemon = start_service(["bash", "-c", given, "bash", *argv], self.directory, self.log, self.environment, timeout, held)

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

    def run_here(self, *argv: str) -> str:
        """What a command says that sees the daemons' mounts, the engine's namespaces among them."""
        return command(*self.argv(*argv)).stdout

    def install_away(self) -> None:
        """What `netplug install docker` writes for engines that find no socket."""
        upper, work = self.directory / "etc", self.directory / "work"
        for folder in (upper, work):
            folder.mkdir()
        # The machine's own /etc stays as it is: an overlay hides it from these daemons.
        layers = f"lowerdir=/etc,upperdir={upper},workdir={work}"
        command(*self.argv("mount", "-t", "overlay", "overlay", "-o", layers, "/etc"))
        path = upper / AWAY.relative_to("etc")
        command(*self.argv("mkdir", "-p", f"/{AWAY.parent}"))
        command(*self.argv("sh", "-c", f'printf %s "$0" > /{AWAY}', away()))
        assert path.exists()

    @contextlib.contextmanager
    def nameserver(self, address: str) -> Iterator[None]:
        """The one that this host has for these daemons."""
        file = self.directory / "nameserver"
        file.write_text(f"nameserver {address}\n")
        self.run_here("mount", "--bind", str(file), "/etc/resolv.conf")
        try:
            yield
        finally:
            self.run_here("umount", "/etc/resolv.conf")

    def seen(self, path: str) -> str:
        """A path of the daemons' mount namespace, as this process finds it."""
        return f"/proc/{self.anchor}/root{path}"

    def close(self) -> None:
        if self.held is not None:
            self.held.close()
        super().close()

    def import_image(self, name: str = IMAGE) -> None:
        super().import_image(name)

    def forget_networks(self) -> None:
        """What a dockerd that does not run would know of networks and containers is lost, and its containers are."""
        assert self.dockerd is None
        demo_hosts.end_processes(self.docker_processes())
        for folder in ("network", "containers"):
            demo_hosts.remove_tree(self.docker_directory / "data" / folder)

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
        endpoints = [one for one in self.records("endpoints/") if one["network"] == network]
        return [port["host_port"] for one in endpoints for port in one.get("ports", ())]

    def records(self, prefix: str) -> list[dict[str, Any]]:
        """What the daemon's store has below that prefix."""
        with contextlib.closing(sqlite3.connect(f"file:{self.state_directory}/netplug.db?mode=ro", uri=True)) as store:
            rows = store.execute("select value from kv where key like ? order by key", (f"/netplug/v1/{prefix}%",)).fetchall()
        return [json.loads(value) if value else {} for (value,) in rows]

    def leftovers(self) -> dict[str, list[str]]:
        """Networks, and pools that are held."""
        networks = sorted(network["Name"] for network in self.api("GET", "/networks"))
        return {"networks": networks, "pools": [pool["subnet"] for pool in self.records("leased-pools/")]}

    def leased(self) -> list[str]:
        """Addresses that the engine has been given."""
        with contextlib.closing(sqlite3.connect(f"file:{self.state_directory}/netplug.db?mode=ro", uri=True)) as store:
            rows = store.execute("select key from kv where key like '/netplug/v1/leased-addresses/%' order by key").fetchall()
        return [str(key).rpartition("/")[2] for (key,) in rows]

    def until(self, condition: Callable[[], Any], timeout: float = 20) -> Any:
        """What the condition gives once that is true."""
        deadline = time.monotonic() + timeout
        while not (found := condition()):
            assert time.monotonic() < deadline, "it did not come to be"
            time.sleep(0.05)
        return found
