"""What was changed just before the daemon died counts, although the container's record is written a little later than its endpoint's."""

from __future__ import annotations

import time
from pathlib import Path

from netplug.cli.demo_hosts import end_processes
from netplug.runtime.waiting import parent
from tests.hosts import Host
from tests.kernel.daily import IDLE, network, run


def test_networks_of_a_container_that_ended_while_the_daemon_was_dead(host: Host):
    for name in ("demo", "other", "third"):
        network(host, name)
    run(host, "web", "--network", "demo", "--network", "third", *IDLE)
    pid = host.container("web")["State"]["Pid"]
    conmon = Path(f"/proc/{parent(pid)}")
    host.api("POST", "/networks/other/connect", {"Container": "web", "EndpointConfig": {"Aliases": ["w"]}})
    host.api("POST", "/networks/third/disconnect", {"Container": "web"})
    host.kill9()
    end_processes([pid])
    deadline = time.monotonic() + 10
    while conmon.exists():  # it ends with the container; then the machine's init has to take note
        assert time.monotonic() < deadline
        time.sleep(0.02)
    host.start()
    assert host.container("web")["State"]["Status"] == "exited"

    assert host.netplug("start", "web").returncode == 0
    networks = host.container("web")["NetworkSettings"]["Networks"]
    assert sorted(networks) == ["demo", "other"]
    assert "w" in networks["other"]["Aliases"]
    assert host.netplug("rm", "-f", "web").returncode == 0
