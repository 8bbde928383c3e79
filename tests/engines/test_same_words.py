"""netplug's command line beside Docker's: the same lines, and the same exit codes, sentences and columns."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from netplug.cli.demo_dockerd import rootfs
from tests.engines import words_container, words_network, words_run
from tests.engines.dockerd import Pair
from tests.engines.words import Story, Twins, expected, text
from tests.hosts import Host, Lan

KEPT = "--stop-signal KILL"
SCENE: Story = (
    "image import TARBALL words",
    "network create --subnet 10.9.0.0/24 demo",
    "network create --subnet 10.8.0.0/24 other",
    "network create --internal --subnet 10.6.0.0/24 --label tier=front --opt z=1 --opt a=2 inside",
    "network create free",
    f"run -d --name web {KEPT} --network demo --ip 10.9.0.10 --hostname shop -e A=b -l z=1 -l tier=front"
    " -p 0.0.0.0:8080:80 -p 127.0.0.1:5353:53/udp words sleep 1000000",
    f"run -d --name both {KEPT} --network demo --network-alias bee words sleep 1000000",
    "network connect other both",
    f"run -d --name plain {KEPT} words sleep 1000000",
    f"run -d --name quiet {KEPT} --network none words sleep 1000000",
    f"run -d --name hosted {KEPT} --network host words sleep 1000000",
    "create --name made --network demo words sh -c 'sleep 1' 'two words' end",
    "run --name ended words sh -c 'echo out; echo err >&2; exit 3'",
)
"""What there is while the stories are told; each leaves it as it was."""
STORIES = (*words_network.STORIES, *words_container.STORIES, *words_run.STORIES, words_network.UNKNOWN_DRIVER)


@pytest.fixture(scope="module")
def twins() -> Iterator[Twins]:
    with Lan("words") as lan, Pair(lan) as docker, Host(lan) as netplug:
        docker.start_dockerd()
        netplug.start()
        tarball = netplug.directory / "words.tar"
        tarball.write_bytes(rootfs())
        both = Twins(docker, netplug, {"TARBALL": str(tarball)})
        with contextlib.closing(both):
            both.ahead(text(words_network.UNKNOWN_DRIVER[0]))
            tell(both, SCENE)
            yield both


@pytest.mark.parametrize("story", STORIES, ids=[text(story[0]) for story in STORIES])
def test_both_say_the_same(twins: Twins, story: Story) -> None:
    tell(twins, story)


def tell(twins: Twins, story: Story) -> None:
    for line in story:
        docker, netplug = twins.both(text(line))
        assert netplug == expected(line, docker), text(line)
