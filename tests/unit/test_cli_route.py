"""`netplug route ls`."""

from __future__ import annotations

import json
from typing import Any

from cli_fixtures import Cli
from cli_server import Daemon


def way(subnet: str, status: str, alive: bool = True) -> dict[str, Any]:
    return {
        "Destination": subnet,
        "Via": "192.0.2.2",
        "Link": "eth0",
        "Node": "two",
        "Network": "demo",
        "Status": status,
        "Alive": alive,
    }


WAYS = [way("10.72.0.0/24", "installed"), way("10.73.0.0/16", "skipped: reasons")]
AWAY = [way("10.72.0.0/24", "installed", alive=False), way("10.73.0.0/16", "skipped: reasons", alive=False)]


def test_a_table(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["GET", "/netplug/routes"] = (200, WAYS)

    assert cli("route", "ls").out.splitlines() == [
        "DESTINATION    VIA         NODE      NETWORK   STATUS",
        "10.72.0.0/24   192.0.2.2   two       demo      installed",
        "10.73.0.0/16   192.0.2.2   two       demo      skipped: reasons",
    ]


def test_a_node_that_is_away(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["GET", "/netplug/routes"] = (200, AWAY)

    assert [line.split("demo      ")[1] for line in cli("route", "ls").out.splitlines()[1:]] == [
        "installed, the node is away",
        "skipped: reasons",
    ]


def test_formats(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["GET", "/netplug/routes"] = (200, AWAY)

    assert cli("route", "ls", "--format", "{{.Destination}} via {{.Via}} dev {{.Link}}: {{.Status}}").out.splitlines() == [
        "10.72.0.0/24 via 192.0.2.2 dev eth0: installed",
        "10.73.0.0/16 via 192.0.2.2 dev eth0: skipped: reasons",
    ]
    assert [json.loads(line) for line in cli("route", "ls", "--format", "json").out.splitlines()] == AWAY


def test_none(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["GET", "/netplug/routes"] = (200, [])

    assert cli("route", "ls").out == "DESTINATION   VIA       NODE      NETWORK   STATUS\n"
