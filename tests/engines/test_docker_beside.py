"""Another netplug on the host has networks by the same plugin as dockerd, which knows nothing of them and restarts: each keeps its own.

Two daemons on one host would take each other's links for leftovers: the other one has no bridge, no firewall and does not heal, and starts
first.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from netplug.cli import demo_hosts
from netplug.cli.demo_dockerd import PLUGIN
from netplug.cli.demo_service import start_service
from tests import nursery
from tests.engines.dockerd import Pair
from tests.engines.test_docker import make, reaches
from tests.hosts import Api, Lan

ALONE = ("--firewall-backend", "none", "--bridge", "none", "--no-heal")


class Other:
    """That daemon, and its command. It finds the plugin where dockerd does."""

    def __init__(self, pair: Pair) -> None:
        self.pair, self.folder = pair, pair.directory / "o"
        self.folder.mkdir()
        self.environment = {**pair.environment, "NETPLUG_HOST": f"unix://{self.folder}/sock"}
        places = ["--socket", f"{self.folder}/sock", "--run-dir", f"{self.folder}/r", "--state-dir", f"{self.folder}/s"]
        argv = pair.argv(sys.executable, "-m", "netplug.cli", "daemon", *places, "--config", str(pair.directory / "netplug.toml"), *ALONE)
        self.daemon = start_service(argv, self.folder, self.folder / "log", self.environment, 30)

    def netplug(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = nursery.run([*nursery.PROGRAM, *arguments], self.environment, "", 60)
        assert not (check and done.returncode), done.stderr
        return done

    def run_container(self, name: str, network: str) -> None:
        self.netplug("run", "-d", "--name", name, "--network", network, "host", "busybox", "sleep", "1000")

    def reaches(self, name: str, target: str) -> bool:
        return self.netplug("exec", name, "busybox", "ping", "-c1", "-W3", target, check=False).returncode == 0

    def close(self) -> None:
        self.daemon.kill()
        self.daemon.wait()
        demo_hosts.end_processes(demo_hosts.owned_processes(self.pair.namespace.path, self.folder))


@pytest.fixture
def beside() -> Iterator[tuple[Pair, Other]]:
    with Lan() as lan, Pair(lan) as pair, contextlib.closing(Other(pair)) as other:
        pair.start()
        pair.start_dockerd()
        pair.import_image()
        yield pair, other
        print(f"netplug:\n{pair.said()}\nthe other:\n{(other.folder / 'log').read_text()}\ndockerd:\n{pair.docker_said()}")


def test_each_keeps_its_own(beside: tuple[Pair, Other]) -> None:
    """`demo` is dockerd's, and the other one has joined it; `theirs` is the other one's alone, with addresses that it has been lent."""
    pair, other = beside
    demo = make(pair, "demo", "--subnet", "10.9.0.0/24")
    pair.run_container("web", "--network", "demo", "--restart", "always")
    other.netplug("network", "create", "-d", "netplug", "--ipam-driver", "null", "-o", f"netplug.network={demo}", "joined")
    other.netplug("network", "create", "-d", "netplug", "--ipam-driver", "netplug", "--subnet", "10.7.0.0/24", "theirs")
    other.run_container("one", "joined")
    other.run_container("two", "theirs")
    with contextlib.closing(Api(pair.seen(PLUGIN))) as plugin:  # as a dockerd that dies before it makes a network of it
        plugin.call("POST", "/IpamDriver.RequestPool", {"AddressSpace": "netplug", "Pool": "10.8.0.0/24"})

    pair.kill_dockerd()
    pair.start_dockerd()
    pair.until(lambda: reaches(pair, "web", "10.9.0.3"))
    pair.until(lambda: "10.8.0.0/24" not in pair.leftovers()["pools"])

    web = pair.docker_address("web", "demo")
    assert sorted(one["address"] for one in pair.records("endpoints/")) == sorted(["10.7.0.2/24", "10.9.0.3/24", f"{web}/24"])
    assert sorted(pair.leftovers()["pools"]) == ["10.7.0.0/24", "10.9.0.0/24"]
    assert sorted(pair.leased()) == sorted(["10.7.0.2", web]), "the other address is no engine's but the network's"
    assert other.reaches("one", web)
    assert other.reaches("two", "10.7.0.1")

    other.netplug("rm", "-f", "one", "two")
    other.netplug("network", "rm", "joined", "theirs")
    pair.until(lambda: [one["address"] for one in pair.records("endpoints/")] == [f"{web}/24"])
    pair.docker("rm", "-f", "web")
    pair.docker("network", "rm", "demo")
    pair.until(lambda: pair.leftovers() == {"networks": ["bridge", "host", "none"], "pools": []})
    assert pair.leased() == []
