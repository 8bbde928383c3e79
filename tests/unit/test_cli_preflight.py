"""`netplug preflight`: what it asks the daemon, and how it shows what was found."""

from __future__ import annotations

import json
from pathlib import Path

from cli_fixtures import Cli
from cli_server import Daemon

from netplug.cli.preflight import drawing

FOUND = [
    {"Check": "pools", "Result": "ok", "Found": "all is free", "Remedy": ""},
    {"Check": "ports", "Result": "error", "Found": "8080:80/tcp is taken by nginx, pid 4711", "Remedy": "choose another host port"},
]


def test_the_table():
    assert drawing(FOUND).splitlines() == [
        "CHECK   RESULT   FOUND                                     REMEDY",
        "pools   ok       all is free",
        "ports   error    8080:80/tcp is taken by nginx, pid 4711   choose another host port",
    ]


def test_the_table_on_a_narrow_terminal():
    assert drawing(FOUND, 60).splitlines() == [
        "CHECK   RESULT   FOUND                         REMEDY",
        "pools   ok       all is free",
        "ports   error    8080:80/tcp is taken by       choose another host port",
        "                 nginx, pid 4711",
    ]


def test_preflight_asks_the_daemon(cli: Cli, cli_daemon: Daemon):
    cli_daemon.answers["POST", "/netplug/preflight"] = (200, FOUND)

    asked = cli("preflight", "--subnet", "10.7.0.0/24", "-p", "127.0.0.1:8080:80", "-p", "8000-8001:80/udp", "--mtu", "1400")

    assert (asked.code, asked.out) == (1, drawing(FOUND))
    assert cli_daemon.only("POST", "/netplug/preflight").body == {
        "Subnets": ["10.7.0.0/24"],
        "PortBindings": {
            "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}],
            "80/udp": [{"HostIp": "", "HostPort": "8000-8001"}],
        },
        "Mtu": 1400,
    }


def test_preflight_prints_as_told(cli: Cli, cli_daemon: Daemon):
    cli_daemon.answers["POST", "/netplug/preflight"] = (200, FOUND[:1])

    assert json.loads(cli("preflight", "--format", "json").out) == FOUND[0]
    assert cli("preflight", "--format", "{{.Check}} {{.Result}}") == (0, "pools ok\n", "")


def test_preflight_says_what_is_wrong_with_it(cli: Cli, cli_daemon: Daemon, tmp_path: Path):
    assert cli("preflight", "-p", "nope").code == 125
    assert cli("preflight", "--config", str(tmp_path / "nothing")).err.startswith("netplug daemon: cannot read")
    (tmp_path / "odd").write_text("mtu = 3\n")
    assert cli("preflight", "--config", str(tmp_path / "odd")) == (
        1,
        "",
        "netplug preflight: invalid --mtu 3: a number from 68 to 65535 is needed\n",
    )
