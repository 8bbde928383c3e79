"""A namespace that goes without a word, as when an engine dies, gives back its addresses and names by itself."""

from __future__ import annotations

import subprocess
import time

from tests.hosts import Host


def test_a_vanished_namespace_gives_everything_back(host: Host):
    host.api("POST", "/networks/create", {"Name": "demo"})
    host.api("POST", "/networks/create", {"Name": "other"})
    before = host.state()["host"]
    for name in ("gone", "stays"):
        done = host.netplug("run", "-d", "--name", name, "--network", "demo", "host", "busybox", "sleep", "1000")
        assert done.returncode == 0, done.stderr
    host.api("POST", "/networks/other/connect", {"Container": "gone"})
    address, path = host.container_address("gone", "demo"), host.sandbox("gone")

    # The resolver's sockets and the container's process hold a namespace too: the process ends, and the bind mount is taken away.
    subprocess.run(["kill", "-9", str(host.container("gone")["State"]["Pid"])], check=True)
    subprocess.run(["umount", "--lazy", path], check=False)

    deadline = time.monotonic() + 10
    while address in taken(host) and time.monotonic() < deadline:
        pass
    assert address not in taken(host)
    assert host.netplug("exec", "stays", "getent", "hosts", "gone").returncode != 0
    assert host.netplug("rm", "-f", "gone", "stays").returncode == 0
    assert host.state()["host"] == before


def taken(host: Host) -> list[str]:
    return [entry["Address"] for pool in host.api("GET", "/netplug/ipam/demo")["Pools"] for entry in pool["Taken"]]
