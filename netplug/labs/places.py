"""A network namespace of a running lab, and eyes for it: `ip -j` and its kin, which show what the learner's own commands show.

A place's name is the host's (`host1`), HOST/NAME for a namespace that was made on the host with `ip netns add NAME`, HOST/@NAME for that
of a running container, or HOST/%NAME for that of an overlay network.
"""

from __future__ import annotations

import fnmatch
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netplug.labs import containers, networks
from netplug.labs.finding import Unmet


@dataclass(frozen=True, slots=True)
class Place:
    name: str
    pid: int
    """Of the host's holder, in the process namespace that we are in."""

    @property
    def host(self) -> str:
        return self.name.partition("/")[0]

    @property
    def inner(self) -> str:
        """The namespace's name on its host; empty: the host's own."""
        return self.name.partition("/")[2]

    @property
    def path(self) -> str:
        """Of the network namespace, as this process reaches it."""
        if self.container:
            return f"{self._container_process}/ns/net"
        if self.network:
            return str(networks.inside(self.run_directory).get(self.network, ""))
        return f"{self.run_directory}/netns/{self.inner}" if self.inner else f"/proc/{self.pid}/ns/net"

    @property
    def container_root(self) -> str:
        """The container's own file system, as this process reaches it."""
        return f"{self._container_process}/root"

    @property
    def _container_process(self) -> str:
        """In the host's own /proc, whose numbers are those that its engine knows."""
        return f"/proc/{self.pid}/root/proc/{containers.running(self.run_directory).get(self.container, 0)}"

    @property
    def container(self) -> str:
        """The name of the container whose network this is."""
        return self.inner.removeprefix("@") if self.inner.startswith("@") else ""

    @property
    def network(self) -> str:
        """The name of the network whose namespace this is."""
        return self.inner.removeprefix("%") if self.inner.startswith("%") else ""

    @property
    def run_directory(self) -> Path:
        """The host's own /run."""
        return Path(f"/proc/{self.pid}/root/run")

    def argv(self, *argv: str) -> list[str]:
        """The command line that runs `argv` here as one of the host's processes."""
        target = ["--target", str(self.pid), "--mount", "--uts", "--pid"]
        return ["nsenter", *target, f"--net={self.path}", "--wd=/", "--", *argv]

    def run(self, *argv: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
        """Run to the end, output captured, whatever the exit code."""
        return subprocess.run(self.argv(*argv), capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)

    def json(self, *argv: str) -> list[dict[str, Any]]:
        """What a command with JSON output says; nothing where it fails (`ip -j link show NAME` without such a link)."""
        done = self.run(*argv)
        said: list[dict[str, Any]] = json.loads(done.stdout or "[]") if done.returncode == 0 else []
        return [item for item in said if item]  # `ip -j link show type veth` has {} for each other link

    def links(self) -> dict[str, dict[str, Any]]:
        """All interfaces with their details, by name."""
        return {link["ifname"]: link for link in self.json("ip", "-j", "-d", "address")}

    def link(self, name: str, why: str = "") -> dict[str, Any]:
        """One interface; Unmet where it is not here. An engine's own names have a part that nobody can know: `vx-*` is the first such."""
        links = self.links()
        found = fnmatch.filter(links, name)
        if not found:
            raise Unmet(f"an interface {name} in {self.name}", f"{self.name} has {', '.join(links) or 'no interface'}", why)
        return links[found[0]]

    def namespaces(self) -> list[str]:
        """Names that `ip netns` shows on this host."""
        directory = self.run_directory / "netns"
        return sorted(entry.name for entry in directory.iterdir()) if directory.is_dir() else []

    def networks(self) -> list[str]:
        """Overlay networks that this host is on, each as %NAME."""
        return sorted(f"%{name}" for name in networks.inside(self.run_directory))

    def containers(self) -> list[str]:
        """Running containers of this host, each as @NAME; not those whose network has a name already: the host's, or one of `ip netns`."""
        named = {
            os.stat(f"/proc/{self.pid}/ns/net").st_ino,
            *(os.stat(self.run_directory / "netns" / name).st_ino for name in self.namespaces()),
        }
        found = containers.running(self.run_directory)
        return sorted(f"@{name}" for name, pid in found.items() if os.stat(f"/proc/{self.pid}/root/proc/{pid}/ns/net").st_ino not in named)

    @property
    def exists(self) -> bool:
        if self.container:
            return self.container in containers.running(self.run_directory)
        if self.network:
            return self.inner in self.networks()
        return not self.inner or self.inner in self.namespaces()

    def require(self, why: str = "") -> None:
        """Unmet unless the namespace is there."""
        if self.container and not self.exists:
            names = ", ".join(containers.running(self.run_directory)) or "none"
            raise Unmet(f"a running container {self.container} on {self.host}", f"running on {self.host}: {names}", why)
        if self.network and not self.exists:
            names = ", ".join(name.removeprefix("%") for name in self.networks()) or "none"
            raise Unmet(f"the overlay network {self.network} on {self.host}", f"overlay networks on {self.host}: {names}", why)
        if not self.container and not self.network and self.inner and self.inner not in self.namespaces():
            names = ", ".join(self.namespaces()) or "none"
            raise Unmet(f"a network namespace {self.inner} on {self.host}", f"namespaces on {self.host}: {names}", why)
