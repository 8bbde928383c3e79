"""The hosts and resolv.conf of a container that runs: what changes them, and what leaves them alone."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from netplug.model import Endpoint, Network
from netplug.runtime.model import Container, ContainerConfig
from netplug.runtime.network_files import NetworkFiles
from netplug.runtime.networking import Controller
from netplug.runtime.paths import Paths
from netplug.settings import Settings

WEB = Container(id="a" * 64, name="web", created="", config=ContainerConfig(image="host", hostname="web"), status="running")


class Endpoints:
    """A controller that knows one sandbox's endpoints; `bridge` is the default network."""

    def __init__(self) -> None:
        self.found: list[Endpoint] = []

    def connect(self, network: str, address: str) -> None:
        self.found.append(Endpoint(id=network, network=network, sandbox=WEB.id, created="", address=address))

    def endpoints(self, *, network: str = "", sandbox: str = "") -> list[Endpoint]:
        return self.found

    def network(self, reference: str) -> Network:
        return Network(id=reference, name=reference, driver="bridge", created="", predefined=reference == "bridge")


class Lab:
    def __init__(self, folder: Path) -> None:
        self.controller, self.paths = Endpoints(), Paths(folder / "run", folder / "state")
        self.host_resolv_conf = folder / "resolv.conf"
        self.host_resolv_conf.write_text("nameserver 192.0.2.1\n")
        self.paths.create()
        self.folder = self.paths.record(WEB.id)
        self.folder.mkdir()

    def files(self) -> NetworkFiles:
        """As a daemon that has just started has them."""
        settings = Settings(resolv_conf=str(self.host_resolv_conf))
        return NetworkFiles(cast(Controller, self.controller), self.paths, settings, lambda name: WEB)

    def own_lines(self) -> list[str]:
        return [line for line in self.said("hosts").splitlines() if "web" in line or "mine" in line]

    def said(self, name: str) -> str:
        return (self.folder / name).read_text()


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def test_a_network_more_and_a_network_less(lab: Lab):
    files = lab.files()
    lab.controller.connect("bridge", "172.17.0.2/16")
    files.write_files(WEB)
    assert (lab.own_lines(), lab.said("resolv.conf")) == (["172.17.0.2\tweb"], "nameserver 192.0.2.1\n")

    lab.controller.connect("demo", "172.18.0.2/16")
    files.refresh_files(WEB)
    assert lab.own_lines() == ["172.17.0.2\tweb", "172.18.0.2\tweb"]
    assert lab.said("resolv.conf") == "nameserver 127.0.0.11\noptions ndots:0\n"

    del lab.controller.found[1]
    files.refresh_files(WEB)
    assert (lab.own_lines(), lab.said("resolv.conf")) == (["172.17.0.2\tweb"], "nameserver 192.0.2.1\n")


def test_the_container_s_own_line_stays_over_a_restart_of_the_daemon(lab: Lab):
    lab.controller.connect("demo", "172.18.0.2/16")
    lab.files().write_files(WEB)
    with (lab.folder / "hosts").open("a") as file:
        file.write("9.9.9.9\tmine\n")

    again = lab.files()
    again.refresh_files(WEB)
    assert lab.own_lines() == ["172.18.0.2\tweb", "9.9.9.9\tmine"]
    lab.controller.connect("other", "172.19.0.2/16")
    again.refresh_files(WEB)
    assert lab.own_lines() == ["172.18.0.2\tweb", "172.19.0.2\tweb", "9.9.9.9\tmine"]


def test_what_would_say_the_same_is_not_touched(lab: Lab):
    files = lab.files()
    lab.controller.connect("demo", "172.18.0.2/16")
    files.write_files(WEB)
    (lab.folder / "hosts").write_text("the container's\n")
    files.refresh_files(WEB)
    assert lab.said("hosts") == "the container's\n"


def test_the_host_s_resolv_conf_is_followed(lab: Lab):
    files = lab.files()
    lab.controller.connect("bridge", "172.17.0.2/16")
    files.write_files(WEB)
    lab.host_resolv_conf.write_text("nameserver 192.0.2.2\nsearch example.org\n")
    files.refresh_files(WEB)
    assert lab.said("resolv.conf") == "search example.org\nnameserver 192.0.2.2\n"


def test_a_new_life_of_a_container_begins_with_fresh_files(lab: Lab):
    files = lab.files()
    lab.controller.connect("demo", "172.18.0.2/16")
    files.write_files(WEB)
    (lab.folder / "hosts").write_text("the container's\n")
    files.write_files(WEB)
    assert lab.own_lines() == ["172.18.0.2\tweb"]
