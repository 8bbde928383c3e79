"""The driver that docs/drivers.md shows, installed as its page says, beside the built-in ones on a real host."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path

from tests.hosts import OUTSIDE_ADDRESS, Host, Lan
from tests.kernel.daily import ask, serve

PAGE = Path(__file__).parents[2] / "docs/drivers.md"


def installed(folder: Path) -> str:
    """The example as pip lays it out: the module, and its entry points beside it."""
    text = PAGE.read_text()
    source, settings = (re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)[0] for language in ("python", "toml"))
    project = tomllib.loads(settings)["project"]
    metadata = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = project["entry-points"]["netplug.drivers"].items()
    (metadata / "entry_points.txt").write_text("[netplug.drivers]\n" + "".join(f"{name} = {value}\n" for name, value in points))
    (folder / "netplug_ptp.py").write_text(source)
    return str(folder)


def test_the_example_driver_carries_packets(hosts: Callable[..., Host], lan: Lan, tmp_path: Path):
    host = hosts(environment={"PYTHONPATH": installed(tmp_path)})
    before = host.state()
    host.netplug("network", "create", "--driver", "ptp", "wire", check=True)
    serve(host, "web", "--network", "wire", "-p", "8080:80")
    serve(host, "client", "--network", "wire")
    done = host.netplug(*shlex.split("exec client busybox ping -c1 -W2 web"))
    assert done.returncode == 0, done.stdout + done.stderr
    gateway = host.api("GET", "/networks/wire")["IPAM"]["Config"][0]["Gateway"]
    assert ask(host.sandbox("client"), host.container_address("web", "wire"), 80) == gateway
    assert ask(lan.outside.path, host.address, 8080) == OUTSIDE_ADDRESS
    assert host.netplug("network", "create", "--driver", "ptp", "--internal", "bad").stderr.strip() == (
        "Error response from daemon: a ptp network leads to the host: it cannot be internal"
    )
    host.restart()
    assert ask(lan.outside.path, host.address, 8080) == OUTSIDE_ADDRESS
    host.netplug("rm", "-f", "web", "client", check=True)
    host.netplug("network", "rm", "wire", check=True)
    assert host.state() == before
