"""The plugin's socket in a service manager's hands: an engine that starts while netplug is down waits for it, and not for 15 s."""

from __future__ import annotations

import contextlib
import select
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from netplug.daemon import PATIENCE
from tests.engines.dockerd import Pair
from tests.engines.test_docker import make, reaches
from tests.hosts import Api, Host, Lan


def test_an_engine_that_starts_brings_netplug_back() -> None:
    with Lan() as lan, Pair(lan) as pair:
        held = pair.hold()
        pair.start()
        pair.start_dockerd()
        pair.import_image()
        make(pair, "demo", "--subnet", "10.9.0.0/24")
        pair.stop_dockerd()
        assert pair.stop() == 0

        asked = threading.Thread(target=lambda: select.select([held], [], [], 30) and pair.start())
        asked.start()
        pair.start_dockerd()
        asked.join()

        pair.run_container("web", "--network", "demo")
        assert reaches(pair, "web", "10.9.0.1")
        assert "retrying" not in pair.docker_said()
        pair.clean()


def test_a_dead_netplug_holds_no_engine_up() -> None:
    """Its socket's name has ended with it, so that the engine has nobody to wait for; what it has here is there when netplug is back."""
    with Lan() as lan, Pair(lan) as pair:
        pair.start()
        pair.start_dockerd()
        pair.import_image()
        make(pair, "demo", "--subnet", "10.9.0.0/24")
        pair.run_container("web", "--network", "demo")
        pair.stop_dockerd()
        pair.kill9()
        pair.install_away()

        pair.start_dockerd()

        assert "netplug.sock: no such file or directory" in pair.docker("start", "web", check=False).stderr
        assert "retrying" not in pair.docker_said()
        pair.start()
        pair.docker("start", "web")
        assert reaches(pair, "web", "10.9.0.1")
        pair.clean()


def test_an_engine_is_answered_while_the_cluster_is_waited_for() -> None:
    """What it asks of this host's own networks needs no etcd."""
    with Lan() as lan, Host(lan) as host, ThreadPoolExecutor(1) as threads:
        path = host.directory / "plugin.sock"
        started = threads.submit(host.start, "--store", "etcd://127.0.0.1:1", "--advertise", host.address, "--docker-plugin", str(path))
        while not path.exists() and not started.done():
            time.sleep(0.01)
        with contextlib.closing(Api(path)) as engine:
            assert engine.call("POST", "/IpamDriver.RequestPool", {"AddressSpace": "netplug"})["Pool"]
        answered = time.monotonic()
        started.result()
        assert time.monotonic() - answered > PATIENCE / 2
