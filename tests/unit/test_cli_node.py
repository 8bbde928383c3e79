"""`netplug node …`: what is asked of the daemon, and what is said."""

from __future__ import annotations

from typing import Any

import pytest
from cli_fixtures import Cli
from cli_server import Daemon

NODE = {"Name": "n1", "Status": "Ready", "Address": "192.0.2.1", "Version": "0.1.0", "Self": True, "Started": "2026-01-31T12:00:00.5Z"}
OTHER = {**NODE, "Name": "another-node", "Status": "Down", "Address": "192.0.2.22", "Self": False}


@pytest.fixture
def nodes(cli_daemon: Daemon) -> Daemon:
    cli_daemon.answers["GET", "/netplug/nodes"] = (200, {"Nodes": [OTHER, NODE], "Warnings": []})
    return cli_daemon


def test_ls(cli: Cli, nodes: Daemon) -> None:
    assert cli("node", "ls").out.splitlines() == [
        "NAME             STATUS    ADDRESS      VERSION",
        "another-node     Down      192.0.2.22   0.1.0",
        "n1 *             Ready     192.0.2.1    0.1.0",
    ]
    assert nodes.only("GET", "/netplug/nodes").query == {}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("-q",), "another-node\nn1\n"),
        (("--format", "{{.Name}}: {{.Status}} {{.Self}}"), "another-node: Down false\nn1: Ready true\n"),
        (("--format", "table {{.Name}}\t{{.StartedAt}}"), None),
        (
            ("--format", "json"),
            '{"Address":"192.0.2.22","Name":"another-node","Self":false,"StartedAt":"2026-01-31 12:00:00.5 +0000 UTC","Status":"Down",'
            '"Version":"0.1.0"}\n'
            '{"Address":"192.0.2.1","Name":"n1","Self":true,"StartedAt":"2026-01-31 12:00:00.5 +0000 UTC","Status":"Ready",'
            '"Version":"0.1.0"}\n',
        ),
    ],
)
def test_ls_by_a_template(cli: Cli, nodes: Daemon, flags: tuple[str, ...], expected: str | None) -> None:
    result = cli("node", "ls", *flags)
    assert (result.code, result.err) == (0, "")
    assert result.out == expected if expected is not None else result.out.startswith("NAME           STARTED AT\n")


def test_ls_asks_for_names_and_passes_warnings_on(cli: Cli, nodes: Daemon) -> None:
    nodes.answers["GET", "/netplug/nodes"] = (200, {"Nodes": [NODE], "Warnings": ["etcd does not answer"]})
    result = cli("node", "ls", "--filter", "name=n1", "-q")
    assert (result.out, result.err) == ("n1\n", "WARNING: etcd does not answer\n")
    assert nodes.only("GET", "/netplug/nodes").query == {"filters": '{"name": {"n1": true}}'}


def test_inspect(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["GET", "/netplug/nodes/n1"] = (200, {**NODE, "Endpoints": 2, "Networks": ["demo"]})
    assert cli("node", "inspect", "--format", '{{.Endpoints}} {{join .Networks ","}}', "n1").out == "2 demo\n"
    cli_daemon.answers["GET", "/netplug/nodes/n2"] = (404, {"message": "No such node: n2"})
    result = cli("node", "inspect", "n2", "n1")
    assert (result.code, result.err) == (1, "Error response from daemon: No such node: n2\n")
    assert '"Endpoints": 2' in result.out


@pytest.mark.parametrize(
    ("flags", "query", "answer", "out"),
    [
        ((), {}, (204, b""), "n2\n"),
        (("--force",), {"force": "1"}, (204, b""), "n2\n"),
        (("--dry-run", "-f"), {"dryrun": "1", "force": "1"}, (200, {"Explain": []}), ""),
        (("--explain",), {"explain": "1"}, (200, {"Explain": []}), "n2\n"),
    ],
)
def test_rm(cli: Cli, cli_daemon: Daemon, flags: tuple[str, ...], query: dict[str, str], answer: tuple[int, Any], out: str) -> None:
    cli_daemon.answers["DELETE", "/netplug/nodes/n2"] = answer
    assert cli("node", "rm", *flags, "n2") == (0, out, "")
    assert cli_daemon.only("DELETE", "/netplug/nodes/n2").query == query


def test_rm_tries_all(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["DELETE", "/netplug/nodes/n2"] = (204, b"")
    cli_daemon.answers["DELETE", "/netplug/nodes/n1"] = (409, {"message": "node n1 is this one: remove it from another node"})
    result = cli("node", "rm", "n1", "n2")
    assert result == (1, "n2\n", "Error response from daemon: node n1 is this one: remove it from another node\n")
