"""`netplug ipam show`: who has which address, since when."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterable
from typing import Any

import click

from netplug.cli import completion, units
from netplug.cli.client import Client, segment
from netplug.cli.command import Command, Group
from netplug.cli.tables import columns

BAR = 50
_PARTS = " ▏▎▍▌▋▊▉█"
_KINDS = {"gateway": "gateway", "reserved": "reserved", "endpoint": "container"}


@click.group("ipam", cls=Group)
def ipam_command() -> None:
    """Show how addresses are used"""


@ipam_command.command("show", cls=Command)
@click.option("--format", "template", default="", help="'json', or a Go template over Network and Pools")
@click.argument("network", required=False, shell_complete=completion.networks)
@click.pass_obj
def show(client: Client, network: str | None, template: str) -> None:
    """Draw the pools of a network, or of all: who has which address, since when"""
    answer = client.call("GET", f"/netplug/ipam/{segment(network)}" if network else "/netplug/ipam")
    found = answer if isinstance(answer, list) else [answer]
    if template:
        from netplug.cli.tables import Inspection

        Inspection(template).show(found)
        return
    unicode = "utf" in (sys.stdout.encoding or "").lower()
    click.echo("\n".join(drawing(item, unicode) for item in found), nl=False)


def drawing(item: dict[str, Any], unicode: bool) -> str:
    """One network: a bar for each pool, and a table of its addresses."""
    pools = item.get("Pools") or []
    text = f"{item['Network']}\n"
    for pool in pools:
        text += f"\n{_pool(pool, unicode)}"
    return text if pools else f"{item['Network']}: no pools\n"


def _pool(pool: dict[str, Any], unicode: bool) -> str:
    taken, capacity = pool.get("Taken") or [], int(pool.get("Capacity") or 0)
    place = pool["Subnet"] + (f", containers from {pool['IPRange']}" if pool.get("IPRange") else "")
    # The capacity is of what containers can get: gateways and reserved addresses take nothing from it.
    used = sum(entry.get("Kind") == "endpoint" for entry in _within_range(taken, pool.get("IPRange") or pool["Subnet"]))
    share = used / capacity if capacity else 1.0
    lines = [f"  {place}", f"  {bar(share, unicode)} {used} of {counted(capacity)} in use ({percent(used, capacity)})", ""]
    table = columns([("ADDRESS", "KIND", "OWNER", "SINCE"), *(_line(entry) for entry in _by_address(taken))])
    return "\n".join(lines) + "\n" + "".join(f"  {line}\n" for line in table.splitlines())


def _line(entry: dict[str, Any]) -> tuple[str, str, str, str]:
    kind = str(entry.get("Kind", ""))
    return str(entry["Address"]), _KINDS.get(kind, kind), str(entry.get("Owner") or "-"), units.age(str(entry.get("Since") or "")) or "-"


def _by_address(taken: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(taken, key=lambda entry: int(ipaddress.ip_interface(entry["Address"]).ip))


def _within_range(taken: Iterable[dict[str, Any]], block: str) -> list[dict[str, Any]]:
    network = ipaddress.ip_network(block, strict=False)
    return [entry for entry in taken if ipaddress.ip_interface(entry["Address"]).ip in network]


def bar(share: float, unicode: bool) -> str:
    """A share of one as a bar; whatever is there is seen, however little."""
    share = min(max(share, 0.0), 1.0)
    if not unicode:
        full = max(round(share * BAR), 1 if share else 0)
        return "[" + "#" * full + "." * (BAR - full) + "]"
    eighths = max(round(share * BAR * 8), 1 if share else 0)
    drawn = "█" * (eighths // 8) + (_PARTS[eighths % 8] if eighths % 8 else "")
    return "▕" + drawn.ljust(BAR) + "▏"


def counted(capacity: int) -> str:
    """As people write it: of an IPv6 subnet's addresses nobody reads the digits."""
    return str(capacity) if capacity < 1 << 32 else f"about 2^{(capacity - 1).bit_length()}"


def percent(used: int, capacity: int) -> str:
    """With as many digits as it takes to see that it is not nothing."""
    if not capacity:
        return "full"
    share = 100 * used / capacity
    return f"{share:.0f} %" if share >= 10 or share == 0 else f"{share:.1f} %" if share >= 0.1 else "under 0.1 %"
