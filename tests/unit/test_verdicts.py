"""How others' chains are read: what drops the rest, what drops by name, and where an accept belongs between them."""

from __future__ import annotations

from typing import Any

import pytest

from netplug.kernel.firewall.verdicts import Drops, chain_drops, chains, place

NAMED = {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "192.0.2.1"}}
BY_INTERFACE = {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "eth0"}}
LIMIT = {"limit": {"rate": 3, "per": "minute"}}
COUNTER, LOG = {"counter": {"packets": 0, "bytes": 0}}, {"log": None}
XT_MATCH = {"xt": {"type": "match", "name": "addrtype"}}
DROP, ACCEPT, RETURN = ({verdict: None} for verdict in ("drop", "accept", "return"))
REJECT, XT_REJECT = {"reject": {"type": "icmpx"}}, {"xt": {"type": "target", "name": "REJECT"}}


def jump(target: str) -> dict[str, Any]:
    return {"jump": {"target": target}}


def goto(target: str) -> dict[str, Any]:
    return {"goto": {"target": target}}


def table(forward: list[list[Any]], policy: str = "accept", **others: list[list[Any]]) -> Any:
    """As nft lists it: a base chain `forward`, and others."""
    listing: list[Any] = [{"chain": {"name": "forward", "hook": "forward", "prio": 0, "policy": policy}}]
    listing += [{"chain": {"name": name}} for name in others]
    for name, rules in {"forward": forward, **others}.items():
        listing += [{"rule": {"chain": name, "handle": number, "expr": rule}} for number, rule in enumerate(rules)]
    return chains({"nftables": listing})


@pytest.mark.parametrize(
    ("listing", "drops"),
    [
        (table([]), Drops.NOTHING),
        (table([], "drop"), Drops.REST),
        (table([[COUNTER, LOG, DROP]]), Drops.REST),
        (table([[REJECT]]), Drops.REST),
        (table([[COUNTER, XT_REJECT]]), Drops.REST),
        (table([[NAMED, DROP]]), Drops.SOME),
        (table([[XT_MATCH, DROP]]), Drops.SOME),
        (table([[LIMIT, DROP]]), Drops.SOME),
        (table([[BY_INTERFACE, DROP]]), Drops.SOME),
        (table([[ACCEPT], [DROP]]), Drops.NOTHING),
        (table([[NAMED, ACCEPT], [DROP]]), Drops.REST),
        (table([[ACCEPT]], "drop"), Drops.NOTHING),
        (table([[jump("other")]], other=[[DROP]]), Drops.REST),
        (table([[jump("other")]], other=[[RETURN], [DROP]]), Drops.NOTHING),
        (table([[NAMED, jump("other")]], other=[[DROP]]), Drops.SOME),
        (table([[BY_INTERFACE, goto("zone")]], zone=[[REJECT]]), Drops.REST),
        (table([[jump("one")]], one=[[jump("two")]], two=[[jump("one")], [NAMED, DROP]]), Drops.SOME),
        (table([[jump("gone")]]), Drops.NOTHING),
    ],
)
def test_how_much_a_chain_drops(listing: Any, drops: Drops):
    assert chain_drops(listing, "forward") is drops


@pytest.mark.parametrize(
    ("rules", "others", "position"),
    [
        ([], {}, 0),
        ([[NAMED, DROP]], {}, 1),
        ([[NAMED, DROP], [LOG]], {}, 1),
        ([[LOG], [LIMIT, LOG]], {}, 0),
        ([[NAMED, DROP], [LOG], [REJECT], [NAMED, DROP]], {}, 1),
        ([[NAMED, DROP], [COUNTER, RETURN]], {}, 1),
        ([[jump("user")], [jump("zones")], [REJECT]], {"user": [[NAMED, DROP]], "zones": [[NAMED, DROP], [REJECT]]}, 1),
    ],
)
def test_where_an_accept_belongs(rules: list[Any], others: dict[str, Any], position: int):
    """Behind what is dropped by name, before what is dropped for want of a rule, and before mere logging."""
    listing = table(rules, "drop", **others)
    assert place(listing, listing["forward"].rules) == position
