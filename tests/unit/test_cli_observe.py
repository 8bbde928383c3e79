"""`netplug ipam show`, `journal`, `events`: what happens on the host, drawn and told."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from cli_fixtures import Cli
from cli_server import Daemon

from netplug.cli.doctor import text
from netplug.cli.ipam import BAR, bar, counted, drawing, percent

POOL = {
    "Subnet": "172.28.0.0/16",
    "IPRange": "172.28.5.0/24",
    "Gateway": "172.28.5.254",
    "Capacity": 254,
    "Taken": [
        {"Address": "172.28.5.10", "Kind": "endpoint", "Owner": "db", "Since": ""},
        {"Address": "172.28.5.9", "Kind": "endpoint", "Owner": "web", "Since": "2020-01-01T00:00:00.5Z"},
        {"Address": "172.28.5.254", "Kind": "gateway", "Owner": "", "Since": ""},
        {"Address": "172.28.1.5", "Kind": "reserved", "Owner": "router", "Since": ""},
    ],
}


def test_a_pool_is_drawn_by_address() -> None:
    years = int((time.time() - 1577836800) // 86400 // 365)

    assert drawing({"Network": "demo", "Pools": [POOL]}, unicode=False).splitlines() == [
        "demo",
        "",
        "  172.28.0.0/16, containers from 172.28.5.0/24",
        f"  [#{'.' * (BAR - 1)}] 2 of 254 in use (0.8 %)",
        "",
        "  ADDRESS        KIND        OWNER     SINCE",
        "  172.28.1.5     reserved    router    -",
        f"  172.28.5.9     container   web       {years} years ago",
        "  172.28.5.10    container   db        -",
        "  172.28.5.254   gateway     -         -",
    ]


@pytest.mark.parametrize(
    ("share", "unicode", "expected"),
    [
        (0, False, "[" + "." * 50 + "]"),
        (0.00001, False, "[#" + "." * 49 + "]"),
        (0.5, False, "[" + "#" * 25 + "." * 25 + "]"),
        (1.5, False, "[" + "#" * 50 + "]"),
        (0, True, "▕" + " " * 50 + "▏"),
        (0.00001, True, "▕▏" + " " * 49 + "▏"),
        (0.51, True, "▕" + "█" * 25 + "▌" + " " * 24 + "▏"),
        (1, True, "▕" + "█" * 50 + "▏"),
    ],
)
def test_bars(share: float, unicode: bool, expected: str) -> None:
    assert bar(share, unicode) == expected


@pytest.mark.parametrize(
    ("used", "capacity", "expected"), [(0, 10, "0 %"), (1, 65533, "under 0.1 %"), (3, 254, "1.2 %"), (5, 10, "50 %"), (0, 0, "full")]
)
def test_percentages(used: int, capacity: int, expected: str) -> None:
    assert percent(used, capacity) == expected


@pytest.mark.parametrize(
    ("capacity", "expected"),
    [(0, "0"), (65533, "65533"), (2**32 - 2, "4294967294"), (2**64 - 2, "about 2^64"), (2**64, "about 2^64"), (2**48 - 2, "about 2^48")],
)
def test_capacities(capacity: int, expected: str) -> None:
    assert counted(capacity) == expected


def test_a_pool_of_ipv6_is_drawn_by_address() -> None:
    taken = [{"Address": address, "Kind": "endpoint", "Owner": address[-1], "Since": ""} for address in ("fd00:9::10", "fd00:9::9")]
    pool = {"Subnet": "fd00:9::/64", "Gateway": "fd00:9::1", "Capacity": 2**64 - 2, "Taken": taken}
    assert drawing({"Network": "six", "Pools": [pool]}, unicode=False).splitlines()[2:] == [
        "  fd00:9::/64",
        f"  [#{'.' * (BAR - 1)}] 2 of about 2^64 in use (under 0.1 %)",
        "",
        "  ADDRESS      KIND        OWNER     SINCE",
        "  fd00:9::9    container   9         -",
        "  fd00:9::10   container   0         -",
    ]


def test_ipam_of_one_network_and_of_all(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["GET", "/netplug/ipam/demo"] = (200, {"Network": "demo", "Pools": [POOL]})
    cli_daemon.answers["GET", "/netplug/ipam"] = (200, [{"Network": "demo", "Pools": [POOL]}, {"Network": "host", "Pools": []}])

    assert cli("ipam", "show", "demo").out.splitlines()[2].strip() == "172.28.0.0/16, containers from 172.28.5.0/24"
    assert cli("ipam", "show").out.endswith("\nhost: no pools\n")
    assert cli("ipam", "show", "--format", "{{range .Pools}}{{len .Taken}}{{end}}", "demo").out == "4\n"


ENTRY = {
    "time": "2026-01-31T12:00:00.123456789Z",
    "action": "connect",
    "subject": "web to demo",
    "by": "api",
    "commands": ["ip link add veth1 type veth", "nft -f - <<'EOF'\nadd x\nEOF"],
    "error": "",
}


def test_the_journal_can_be_pasted(cli: Cli, cli_daemon: Daemon) -> None:
    """All but the commands is comment."""
    failed = {**ENTRY, "error": "no such device", "commands": []}
    cli_daemon.answers["GET", "/netplug/journal"] = (200, [ENTRY, failed])

    lines = cli("journal", "-n", "2").out.splitlines()

    assert cli_daemon.only("GET", "/netplug/journal").query == {"limit": "2"}
    assert lines[0].startswith("# 2026-01-31 ")
    assert lines[0].endswith(".123  connect web to demo  (by api)")
    assert lines[1:5] == ["ip link add veth1 type veth", "nft -f - <<'EOF'", "add x", "EOF"]
    assert lines[6:] == ["# failed, and undone: no such device"]


def test_the_journal_goes_on(cli: Cli, cli_daemon: Daemon) -> None:
    """One JSON object a line, cut anywhere."""
    text = (json.dumps(ENTRY) + "\n" + json.dumps({**ENTRY, "subject": "ü"}, ensure_ascii=False) + "\n").encode()
    cli_daemon.answers["GET", "/netplug/journal"] = lambda request: request.stream(text[:20], text[20:-15], text[-15:])

    assert cli("journal", "-f", "--format", "{{.action}} {{.subject}}").out == "connect web to demo\nconnect ü\n"
    assert cli_daemon.only("GET", "/netplug/journal").query == {"follow": "1"}


def test_the_journal_in_brief(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["GET", "/netplug/journal"] = (200, [ENTRY])

    assert len(cli("journal", "-q").out.splitlines()) == 1
    assert cli("journal", "-n", "-1") == (1, "", "-n: how many entries? A number from 0 is needed\n")
    assert cli("journal", "--format", "{{").code == 64


def test_events(cli: Cli, cli_daemon: Daemon) -> None:
    event: dict[str, Any] = {
        "Type": "network",
        "Action": "connect",
        "Actor": {"ID": "3a12", "Attributes": {"name": "demo", "container": "f243"}},
        "time": 1769860800,
        "timeNano": 1769860800000000001,
    }
    cli_daemon.answers["GET", "/events"] = (200, json.dumps(event).encode() + b"\n" + json.dumps(event).encode())

    lines = cli("events", "--since", "1", "--until", "2", "-f", "type=network").out.splitlines()
    assert len(lines) == 2
    assert ".000000001" in lines[0]
    assert lines[0].partition(" ")[2] == "network connect 3a12 (container=f243, name=demo)"
    assert cli_daemon.requests[-1].query == {"since": "1", "until": "2", "filters": '{"type": {"network": true}}'}
    assert cli("events", "--format", "{{.Type}} {{.Actor.Attributes.name}}").out == "network demo\n" * 2
    assert json.loads(cli("events", "--format", "json").out.splitlines()[0]) == event


def test_differences_are_told() -> None:
    lost = {"Subject": "network demo", "Found": "bridge b is missing", "Meaning": "cut off", "Repair": ["ip link add b"]}
    other = {**lost, "Found": "bridge c is missing"}

    assert list(text([])) == ["Nothing differs"]
    assert list(text([lost, other])) == [
        "network demo: bridge b is missing",
        "    cut off",
        "    ip link add b",
        "network demo: bridge c is missing",
        "    cut off",
        "    # as above",
        "2 differences: netplug doctor --fix puts right what it can",
    ]
    assert list(text([{**lost, "Repaired": True}, {**other, "Repaired": False, "Error": "no"}], fixed=True)) == [
        "network demo: bridge b is missing",
        "    cut off",
        "    repaired",
        "network demo: bridge c is missing",
        "    cut off",
        "    not repaired: no",
        "    ip link add b",
        "1 of 2 repaired",
    ]
