"""Our own plugin of the Docker Engine, served by a second daemon, as a driver of the first: one network, containers of both on it.

Two daemons on one host would take each other's links for leftovers: the first has no bridge of its own, no firewall and does not heal, and
it starts first.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netplug.cli import demo_hosts
from netplug.cli.demo_service import start_service
from tests.hosts import Host

IDLE = ("host", "busybox", "sleep", "1000")


class Other:
    """The second daemon, on the host of the first, and its command."""

    def __init__(self, host: Host, folder: Path, plugin: Path) -> None:
        self.host, self.folder = host, folder
        self.environment = {**host.environment, "NETPLUG_HOST": f"unix://{folder}/sock"}
        places = ["--socket", f"{folder}/sock", "--run-dir", f"{folder}/r", "--state-dir", f"{folder}/s", "--docker-plugin", str(plugin)]
        argv = host.argv(sys.executable, "-m", "netplug.cli", "daemon", *places, "--config", str(host.directory / "netplug.toml"))
        self.daemon = start_service(argv, folder, folder / "log", self.environment, 30)

    def netplug(self, *arguments: str) -> str:
        argv = [sys.executable, "-m", "netplug.cli", *arguments]
        return subprocess.run(argv, env=self.environment, capture_output=True, text=True, check=True, timeout=60).stdout

    def close(self) -> None:
        self.daemon.kill()
        self.daemon.wait()
        demo_hosts.end_processes(demo_hosts.owned_processes(self.host.namespace.path, self.folder))
        demo_hosts.remove_tree(self.folder)


@pytest.fixture
def pair(hosts: Callable[..., Host], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, Other]]:
    sockets, folder = tmp_path_factory.mktemp("p"), tmp_path_factory.mktemp("o")
    host = hosts("--firewall-backend", "none", "--bridge", "none", "--no-heal", environment={"NETPLUG_PLUGIN_PATH": str(sockets)})
    with contextlib.closing(Other(host, folder, sockets / "netplug.sock")) as other:
        yield host, other


def test_one_network_of_two_daemons(pair: tuple[Host, Other]):
    host, other = pair
    other.netplug("network", "create", "--subnet", "10.60.0.0/24", "shared")
    other.netplug("run", "-d", "--name", "theirs", "--network", "shared", *IDLE)
    host.netplug("network", "create", "-d", "netplug", "--ipam-driver", "null", "-o", "netplug.network=shared", "demo", check=True)
    for name in ("aa", "bb"):
        host.netplug("run", "-d", "--name", name, "--network", "demo", *IDLE, check=True)
    assert [host.container_address(name, "demo") for name in ("aa", "bb")] == ["10.60.0.3", "10.60.0.4"]
    for target in ("bb", "10.60.0.1", "10.60.0.2", "203.0.113.1"):
        assert host.netplug("exec", "aa", "busybox", "ping", "-c1", "-W2", target).returncode == 0, target
    assert "10.60.0.3/24" in other.netplug("network", "inspect", "shared")
    host.netplug("network", "disconnect", "demo", "aa", check=True)
    assert "10.60.0.3/24" not in other.netplug("network", "inspect", "shared")
    host.netplug("network", "connect", "demo", "aa", check=True)
    assert host.netplug("exec", "aa", "busybox", "ping", "-c1", "-W2", "bb").returncode == 0
    host.netplug("rm", "-f", "aa", "bb", check=True)
    host.netplug("network", "rm", "demo", check=True)
    other.netplug("rm", "-f", "theirs")
    other.netplug("network", "rm", "shared")
    assert not [link["name"] for link in host.state()["host"]["links"] if link["name"].startswith(("np", "veth", "br-"))]
