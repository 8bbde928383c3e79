"""Links that another netplug has taken away come back, though their going is not told as a loss: they are marked as being deleted."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from netplug.plan import DOOMED_GROUP, RETIRED_GROUP
from tests.hosts import Host
from tests.kernel.daily import IDLE, network, run
from tests.kernel.test_heal import healed, kernel, until

INHIBIT = "com.docker.network.bridge.inhibit_ipv4=true"
"""A bridge without an address: no address tells that it goes."""


@pytest.fixture
def pair(hosts: Callable[..., Host]) -> Host:
    """A host with containers on a network whose bridge has no address, and on an ordinary one."""
    host = hosts()
    network(host, "-o", INHIBIT, "--subnet", "10.56.0.0/24", "inh")
    network(host, "--subnet", "10.57.0.0/24", "nor")
    for name in ("inh", "nor"):
        run(host, f"c{name}", "--network", name, *IDLE)
    return host


def bridge(host: Host, name: str) -> str:
    return f"br-{host.api('GET', f'/networks/{name}')['Id'][:12]}"


def veth(host: Host, name: str) -> str:
    return f"veth{host.container(f'c{name}')['NetworkSettings']['Networks'][name]['EndpointID'][:7]}"


def batch(host: Host, *lines: str) -> None:
    """At once, as one netlink client does it."""
    path = host.directory / "batch"
    path.write_text("".join(f"{line}\n" for line in lines))
    host.run("ip", "-batch", str(path))


def test_links_that_are_marked_and_deleted(pair: Host):
    """All with one message, as the reaper does it."""
    before = kernel(pair)
    links = [find(pair, name) for name in ("inh", "nor") for find in (bridge, veth)]
    batch(pair, *(f"link set dev {link} group {DOOMED_GROUP}" for link in links), f"link del group {DOOMED_GROUP}")
    healed(pair, before)
    assert "could not be put right" not in pair.said()


def test_bridges_that_are_retired_first(pair: Host):
    before = kernel(pair)
    for name in ("inh", "nor"):
        link, port = bridge(pair, name), veth(pair, name)
        retire = (f"link set dev {link} down", f"link set dev {link} name retired{name} group {RETIRED_GROUP}")
        batch(pair, f"link set dev {port} group {DOOMED_GROUP}", *retire, f"link del {port}")
    for name in ("inh", "nor"):
        pair.run("ip", "link", "del", f"retired{name}")
    healed(pair, before)


def test_what_could_not_be_put_back_is_tried_again(pair: Host):
    """The bridge's name is taken by a link that is not ours; when that has gone, nobody tells of it."""
    before = kernel(pair)
    name = bridge(pair, "inh")
    batch(pair, "link add squatter type veth peer name squatted")
    # What takes the kernel long comes last: the healing must not be faster.
    squat = (f"link set {name} down", f"link set {name} name gone", f"link set squatter name {name}")
    batch(pair, *squat, f"link del {veth(pair, 'inh')}", "link del gone")
    until(lambda: "could not be put right" in pair.said())
    assert "there is no link eth0" not in pair.said()
    batch(pair, f"link set {name} name squatter", "link del squatter")
    healed(pair, before)
