"""Elements by raw netlink are what libnftables writes and reads, in every set and map with intervals; each can take the other's away."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable

import pytest

from netplug.errors import KernelError
from netplug.kernel import syscalls
from netplug.kernel.firewall import ruleset
from netplug.kernel.firewall.batch import MOST, Batch, fits
from netplug.kernel.firewall.elements import Elements, Place, additions, deletions
from netplug.kernel.firewall.generation import Generation
from netplug.kernel.firewall.libnftables import Context
from tests.kernel.inside import command, in_host

KEYS = {
    "masq4": ("10.0.0.0/16", "10.1.0.0/16", "192.168.7.9", "0.0.0.0/8", "240.0.0.0/4"),
    "masq6": ("fd00::/64", "fd00:0:0:1::/64", "::/1", "ff00::/8"),
    "same4": ("10.0.0.0/16 . 10.0.0.0/16", "10.1.0.0/16 . 10.1.0.0/16", "192.168.7.9 . 192.168.7.9"),
    "same6": ("fd00::/64 . fd00::/64",),
    "reach4": ('"uplink" . 10.9.0.0/16 . 10.0.0.0/16',),
    "reach6": ('"uplink" . fd09::/64 . fd00::/64',),
    "direct4r": ("10.0.0.2 . tcp . 8000-8010", "10.0.0.2 . udp . 1-65535"),
    "direct6r": ("fd00::2 . sctp . 9-10",),
}
VALUES = {
    "snat4": {"10.2.0.0/16": "203.0.113.9", "10.3.0.0/24": "203.0.113.8"},
    "snat6": {"fd02::/64": "2001:db8::9"},
    "pub4r": {"203.0.113.1 . tcp . 8000-8100": "10.0.0.2"},
    "pub6r": {"2001:db8::1 . tcp . 8000-8100": "fd00::2"},
    "pub4anyr": {"udp . 100-200": "10.0.0.2"},
    "pub6anyr": {"udp . 100-200": "fd00::2"},
}
ALL: Elements = {
    **{Place(f"inet netplug {name}", key): "" for name, keys in KEYS.items() for key in keys},
    **{Place(f"inet netplug {name}", key): value for name, found in VALUES.items() for key, value in found.items()},
}
"""In order: each element's set has some before it, and the last of a set goes as well as the first."""


def by_library(context: Context, delete: list[Place], add: Elements) -> None:
    context.transact("\n".join((*deletions(delete), *additions(add))))


def by_netlink(context: Context, delete: list[Place], add: Elements) -> None:
    Batch().transact(delete, add)


WAYS = {"library": by_library, "netlink": by_netlink}
Way = Callable[[Context, list[Place], Elements], None]


def tables(*changes: tuple[Way, list[Place], Elements]) -> str:
    """What nft lists after these, in a namespace of their own."""
    said: list[str] = []

    def work() -> None:
        syscalls.unshare_network()
        context = Context()
        context.transact(ruleset.base())
        for way, delete, add in changes:
            way(context, delete, add)
        said.append(command("nft", "list", "ruleset"))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return said[0]


def test_every_interval_set_is_among_them():
    declared = {one.name for one in ruleset.declared_types() if one.interval}
    assert declared == {*KEYS, *VALUES}


def test_it_reads_as_what_the_library_writes():
    written = tables((by_library, [], ALL))
    assert tables((by_netlink, [], ALL)) == written
    assert all(key.split("/")[0] in written for place in ALL for key in place.key.split(" . "))


@pytest.mark.parametrize("order", [list(ALL), list(ALL)[::-1]], ids=["forwards", "backwards"])
def test_one_after_the_other(order: list[Place]):
    """Concatenations are listed in the order in which they came."""
    found, expected = tables(*((by_netlink, [], {place: ALL[place]}) for place in order)), tables((by_library, [], ALL))
    assert sorted(found.replace(",", "").split()) == sorted(expected.replace(",", "").split())


@pytest.mark.parametrize(("first", "second"), [("library", "netlink"), ("netlink", "library"), ("netlink", "netlink")])
def test_each_takes_away_what_the_other_has_written(first: str, second: str):
    nothing = tables()
    half, rest = list(ALL)[::2], list(ALL)[1::2]
    assert tables((WAYS[first], [], ALL), (WAYS[second], list(ALL), {})) == nothing
    kept = {place: ALL[place] for place in rest}
    assert tables((WAYS[first], [], ALL), (WAYS[second], half, {})) == tables((by_library, [], kept))


def test_again_and_again():
    there = (by_netlink, [], ALL)
    exchanged = (by_netlink, list(ALL), ALL)
    assert tables(there, there, exchanged, (by_library, [], ALL), there) == tables((by_library, [], ALL))


@in_host
def test_what_overlaps_is_refused_whole():
    Context().transact(ruleset.base())
    Batch().transact([], {Place("inet netplug masq4", "10.0.0.0/16"): ""})
    before = command("nft", "list", "ruleset")
    overlapping = {Place("inet netplug masq4", "192.168.0.0/24"): "", Place("inet netplug masq4", "10.0.0.0/8"): ""}
    with pytest.raises(KernelError):
        Batch().transact([], overlapping)
    assert command("nft", "list", "ruleset") == before


@in_host
def test_the_generation_that_a_transaction_makes_is_told():
    Context().transact(ruleset.base())
    batch, generation = Batch(), Generation()
    said = []
    for delete, add in (([], ALL), (list(ALL), {}), ([], ALL)):
        said.append(batch.transact(delete, add))
        assert said[-1] == generation.read()
    assert said == [said[0], said[0] + 1, said[0] + 2]


@in_host
def test_a_transaction_that_changes_nothing_makes_no_generation():
    Context().transact(ruleset.base())
    batch, generation = Batch(), Generation()
    guarded = {Place("bridge netplug ports", '"veth1"'): "goto guard"}
    before = batch.transact([], guarded)
    assert batch.transact([], guarded) is None
    assert generation.read() == before


@in_host
@pytest.mark.parametrize("position", [0, 1, 2])
def test_whichever_message_is_refused_nothing_is_done_and_the_next_transaction_is(position: int):
    """Each set has a message of its own."""
    Context().transact(ruleset.base())
    batch, generation = Batch(), Generation()
    there = [
        Place("bridge netplug ports", '"veth1"'),
        Place("inet netplug direct4", "10.0.0.2 . tcp . 80"),
        Place("inet netplug masq4", "10.0.0.0/8"),
    ]
    values = dict(zip(there, ("goto guard", "", ""), strict=True))
    missing = there[position]
    before = batch.transact([], {place: value for place, value in values.items() if place != missing})

    with pytest.raises(KernelError) as raised:
        batch.transact(there, {})

    assert raised.value.errno == errno.ENOENT
    assert generation.read() == before
    assert batch.transact([], {missing: values[missing]}) == batch.transact(there, {}) - 1 == before + 1


def test_as_many_as_fit():
    keys = [Place("inet netplug masq4", f"10.{one >> 8}.{one & 255}.0/24") for one in range(MOST)]
    most = dict.fromkeys(keys[: MOST // 3], "")
    assert fits([], most)
    assert not fits(keys[MOST // 3 : MOST // 3 + 1], most)
    assert tables((by_netlink, [], most), (by_netlink, list(most), {})) == tables()
