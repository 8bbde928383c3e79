"""Names for containers that were given none: an adjective and a piece of network or workshop gear."""

from __future__ import annotations

import random
import re
from collections.abc import Container

from netplug.errors import InvalidArgument

_ADJECTIVES = (
    "amber ample apt brave breezy bright brisk calm candid cheery civil clear clever cosy crisp curious dapper daring deft "
    "dizzy eager early easy fair fancy fearless fleet fond frank fresh frosty gentle glad golden grand handy happy hardy "
    "honest humble jolly keen kind lively loyal lucid lucky mellow merry mild mighty modest neat nimble noble patient plucky "
    "polite proud quick quiet rapid ready robust rosy sharp silent silver simple sleek smart snug sober solid spry stable "
    "steady stout sunny swift tall tidy trusty upbeat vivid warm wise witty zesty"
)
_NOUNS = (
    "anchor antenna arrow atlas axle badger balloon bamboo barge basin beacon beaver bellows bison bobbin bolt bridge buoy "
    "cable canal canoe carrier castle cedar chisel clock comet compass condor copper crane cricket crystal dolphin dragonfly "
    "engine falcon ferry fiddle filter finch fjord galley gasket geyser glacier harbour hare hawk heron hinge island jay "
    "kettle kite ladder lagoon lantern lathe lemur lever lighthouse lock loom lynx magnet maple marlin meadow meteor mill "
    "mortar needle octave orchid osprey otter packet paddle pebble pelican piston planet plover prism puffin pulley quarry "
    "radar raft raven relay river rocket rotor router rudder sail satchel scarab schooner signal socket spindle sparrow spoke "
    "sprocket squid stork summit switch tanager tern thimble tram trellis trolley tunnel turbine valley valve vessel viaduct "
    "walnut whistle willow windmill wren yarrow zephyr"
)


def generate(taken: Container[str]) -> str:
    """A name that is not taken: `swift_heron`, and with a number behind it when those run out."""
    for attempt in range(200):
        name = f"{random.choice(_ADJECTIVES.split())}_{random.choice(_NOUNS.split())}"
        if attempt >= 20:
            name += str(random.randrange(10**6))
        if name not in taken:
            return name
    raise InvalidArgument("no name could be made up: give one with --name")


def check(name: str) -> str:
    """The name without a leading slash; InvalidArgument if it is not one."""
    plain = name.removeprefix("/")
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", plain):
        raise InvalidArgument(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return plain
