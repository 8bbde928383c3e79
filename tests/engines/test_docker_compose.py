"""`docker-compose up` on networks of ours: services by their names, a published port, and everything gone with `down`."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tests.engines.dockerd import Pair
from tests.engines.test_docker import from_outside, own
from tests.engines.test_docker_names import found, ours

pytestmark = pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not installed (make setup)")

PROJECT = """
version: "3.5"
services:
  web:
    image: bench
    command: nc -ll -p 80 -e echo served
    stop_signal: SIGKILL
    ports: ["8080:80"]
    networks: {front: {aliases: [www]}}
  asks:
    image: bench
    command: sleep 100000
    stop_signal: SIGKILL
    networks: [front]
networks:
  front:
    driver: netplug
    ipam: {driver: netplug, config: [{subnet: 10.12.0.0/24}]}
    driver_opts: {com.docker.network.driver.mtu: "1400"}
"""


def compose(pair: Pair, *arguments: str) -> None:
    file = pair.directory / "compose.yml"
    file.write_text(PROJECT)
    environment = dict(os.environ, DOCKER_HOST=f"unix://{pair.docker_socket}", COMPOSE_PROJECT_NAME="shop")
    argv = pair.argv("docker-compose", "--file", str(file), *arguments)
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_up_and_down(pair: Pair) -> None:
    compose(pair, "up", "--detach")
    pair.until(lambda: pair.only_network() == "shop_front")
    own(pair, "mine", "shop_front")

    assert from_outside(pair, 8080) == "served"
    for name in ("web", "www"):
        pair.until(lambda name=name: len(ours(pair, "mine", name)) == 1)
        assert ours(pair, "mine", name) == found(pair, "shop_asks_1", name)
    assert len(found(pair, "shop_asks_1", "mine")) == 1
    assert "mtu 1400" in pair.docker_exec("shop_web_1", "ip", "link", "show", "eth0").stdout

    compose(pair, "up", "--detach", "--scale", "asks=2")
    pair.until(lambda: len(ours(pair, "mine", "asks")) == 2)
    pair.netplug("rm", "-f", "mine", check=True)
    compose(pair, "down")
    assert pair.leftovers() == {"networks": ["bridge", "host", "none"], "pools": []}
