"""`netplug network …`: what is asked of the daemon, and what is said."""

from __future__ import annotations

import io
from typing import Any

import pytest
from cli_fixtures import Cli
from cli_server import Daemon

from netplug.cli.command import Failure
from netplug.cli.network import natural, pools

ID = "3a12f7bd76151cc1f2b62ecb34762478fd28fe73e45be582bd912bd146284c45"
COMMANDS = ["ip link add br-3a12f7bd7615 type bridge", "ip link set br-3a12f7bd7615 up"]


def _network(name: str, **more: Any) -> dict[str, Any]:
    common = {"Id": ID, "Name": name, "Driver": "bridge", "Scope": "local", "Created": "2026-01-31T12:00:00.5Z", "Labels": {}}
    return {**common, **more}


def test_create(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["POST", "/networks/create"] = (201, {"Id": ID, "Warning": ""})
    flags = "--subnet 172.28.0.0/16 --ip-range 172.28.5.0/24 --gateway 172.28.5.254 --aux-address r=172.28.1.5 --label a=b --internal"
    flags += " -o com.docker.network.driver.mtu=1400 --ipam-opt serial=true --subnet 10.1.0.0/24"

    assert cli("network", "create", *flags.split(), "demo") == (0, ID + "\n", "")
    request = cli_daemon.only("POST", "/networks/create")
    assert request.query == {}
    assert request.body == {
        "Name": "demo",
        "CheckDuplicate": True,
        "Driver": "bridge",
        "Scope": "",
        "Internal": True,
        "Attachable": False,
        "IPAM": {
            "Driver": "default",
            "Options": {"serial": "true"},
            "Config": [
                {
                    "Subnet": "172.28.0.0/16",
                    "IPRange": "172.28.5.0/24",
                    "Gateway": "172.28.5.254",
                    "AuxiliaryAddresses": {"r": "172.28.1.5"},
                },
                {"Subnet": "10.1.0.0/24"},
            ],
        },
        "Options": {"com.docker.network.driver.mtu": "1400"},
        "Labels": {"a": "b"},
    }


@pytest.mark.parametrize(
    ("subnets", "gateways", "ranges", "reserved", "sentence"),
    [
        ([], ["10.1.1.1"], [], [], "every ip-range or gateway must have a corresponding subnet"),
        ([], [], ["10.1.1.0/25"], [], "every ip-range or gateway must have a corresponding subnet"),
        (["10.1.1.0/24", "10.1.1.0/25"], [], [], [], "multiple overlapping subnet configuration is not supported"),
        (["10.1.1.0/24"], ["10.1.2.1"], [], [], "no matching subnet for gateway 10.1.2.1"),
        (["10.1.1.0/24"], [], ["10.2.1.0/25"], [], "no matching subnet for range 10.2.1.0/25"),
        (["10.1.1.0/24"], [], [], [("a", "1.1.1.1")], "no matching subnet for aux-address 1.1.1.1"),
        (["10.1.1.0/24"], [], [], [("10.1.1.3", "")], "invalid aux-address 10.1.1.3: NAME=ADDRESS is needed"),
        (["10.1.1.0/24"], ["fd00::1"], [], [], "no matching subnet for gateway fd00::1"),
        (["x"], ["10.1.1.1"], [], [], "invalid subnet: invalid CIDR address: x"),
        (["10.1.1.0/24"], [], ["x/y"], [], "invalid CIDR address: x/y"),
        (
            ["10.1.1.0/24", "10.2.1.0/24"],
            ["10.1.1.1", "10.1.1.2"],
            [],
            [],
            "cannot configure multiple gateways (10.1.1.2, 10.1.1.1) for the same subnet (10.1.1.0/24)",
        ),
        (
            ["10.1.1.0/24", "10.2.1.0/24"],
            [],
            ["10.1.1.0/25", "10.1.1.0/26"],
            [],
            "cannot configure multiple ranges (10.1.1.0/26, 10.1.1.0/25) on the same subnet (10.1.1.0/24)",
        ),
    ],
)
def test_pools_that_do_not_fit(subnets: Any, gateways: Any, ranges: Any, reserved: Any, sentence: str) -> None:
    with pytest.raises(Failure) as caught:
        pools(subnets, gateways, ranges, reserved)

    assert caught.value.message == sentence


def test_a_single_subnet_is_the_daemons_to_judge() -> None:
    assert pools(["x"], [], [], []) == [{"Subnet": "x"}]


def test_explain_prints_the_commands_after_the_id(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["POST", "/networks/create"] = (201, {"Id": ID, "Explain": COMMANDS})

    assert cli("network", "create", "--explain", "demo").out.splitlines() == [ID, *COMMANDS]
    assert cli_daemon.only("POST", "/networks/create").query == {"explain": "1"}


@pytest.mark.parametrize(
    ("args", "method", "path", "answer"),
    [
        (["create", "demo"], "POST", "/networks/create", {"Id": ""}),
        (["rm", "demo"], "DELETE", "/networks/demo", {}),
        (["connect", "demo", "web"], "POST", "/networks/demo/connect", {}),
        (["disconnect", "demo", "web"], "POST", "/networks/demo/disconnect", {}),
        (["prune"], "POST", "/networks/prune", {"NetworksDeleted": ["demo"]}),
    ],
)
def test_a_dry_run_prints_only_commands(cli: Cli, cli_daemon: Daemon, args: list[str], method: str, path: str, answer: Any) -> None:
    cli_daemon.answers[method, path] = (200, {**answer, "Explain": COMMANDS})

    assert cli("network", args[0], "--dry-run", *args[1:]) == (0, "\n".join([*COMMANDS, ""]), "")
    assert cli_daemon.only(method, path).query == {"dryrun": "1"}


def test_a_dry_run_is_not_asked_of_a_daemon_that_would_do_it(cli: Cli, cli_daemon: Daemon) -> None:
    """Another engine's daemon ignores `dryrun`."""
    cli_daemon.answers["GET", "/version"] = (200, {"Platform": {"Name": "Docker Engine"}})
    result = cli("network", "rm", "--dry-run", "demo")

    assert (result.code, result.err) == (1, f"--dry-run: the daemon at {cli_daemon.host} is not netplug's\n")
    assert cli_daemon.asked() == ["GET /version"]


def test_ls_sorts_by_name_as_people_do(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["GET", "/networks"] = (200, [_network(name) for name in ("net10", "net2", "bridge")])

    assert cli("network", "ls").out == (
        "NETWORK ID     NAME      DRIVER    SCOPE\n"
        "3a12f7bd7615   bridge    bridge    local\n"
        "3a12f7bd7615   net2      bridge    local\n"
        "3a12f7bd7615   net10     bridge    local\n"
    )
    assert cli("network", "ls", "-q", "--no-trunc").out.splitlines() == [ID] * 3


def test_ls_in_json_and_with_filters(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["GET", "/networks"] = (200, [_network("demo", Labels={"b": "2", "a": "1"}, EnableIPv6=True, EnableIPv4=True)])
    result = cli("network", "ls", "-f", "driver=bridge", "--filter", "label=a=1", "-f", "label=b", "--format", "json")

    assert result.out == (
        '{"CreatedAt":"2026-01-31 12:00:00.5 +0000 UTC","Driver":"bridge","ID":"3a12f7bd7615","IPv4":"true","IPv6":"true",'
        '"Internal":"false","Labels":"a=1,b=2","Name":"demo","Scope":"local"}\n'
    )
    assert cli_daemon.only("GET", "/networks").query == {
        "filters": '{"driver": {"bridge": true}, "label": {"a=1": true, "b": true}}',
    }


def test_inspect_shows_what_is_there_and_names_what_is_not(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["GET", "/networks/demo"] = (200, _network("demo"))
    cli_daemon.answers["GET", "/networks/nosuch"] = (404, {"message": "network nosuch not found"})

    assert cli("network", "inspect", "-f", "{{.Name}}", "nosuch", "demo") == (
        1,
        "demo\n",
        "Error response from daemon: network nosuch not found\n",
    )


def test_rm_tries_every_name(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["DELETE", "/networks/b"] = (403, {"message": "network b has active endpoints"})
    cli_daemon.answers["DELETE", "/networks/a"] = cli_daemon.answers["DELETE", "/networks/c"] = (204, b"")

    assert cli("network", "rm", "a", "b", "c") == (1, "a\nc\n", "Error response from daemon: network b has active endpoints\n")


def test_rm_force_is_content_with_what_is_gone(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["DELETE", "/networks/a"] = (404, {"message": "network a not found"})

    assert cli("network", "rm", "-f", "a") == (0, "", "")


def test_a_name_is_one_segment_of_the_path(cli: Cli, cli_daemon: Daemon) -> None:
    """Else `rm '../containers/web'` would be another request."""
    cli("network", "rm", "../containers/we b?force=1")

    assert cli_daemon.asked() == ["DELETE /networks/../containers/we b?force=1"]
    assert cli_daemon.requests[0].query == {}


def test_connect(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["POST", "/networks/demo/connect"] = (200, {"Explain": COMMANDS})
    flags = "--ip 10.0.0.9 --alias a --alias b --link web:w --link db --driver-opt k=v --gw-priority -1 --explain"

    assert cli("network", "connect", *flags.split(), "demo", "web").out.splitlines() == COMMANDS
    assert cli_daemon.only("POST", "/networks/demo/connect").body == {
        "Container": "web",
        "EndpointConfig": {
            "IPAMConfig": {"IPv4Address": "10.0.0.9"},
            "Links": ["web:w", "db:db"],
            "Aliases": ["a", "b"],
            "DriverOpts": {"k": "v"},
            "GwPriority": -1,
        },
    }


def test_disconnect(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["POST", "/networks/demo/disconnect"] = (200, b"")

    assert cli("network", "disconnect", "-f", "demo", "web") == (0, "", "")
    assert cli_daemon.only("POST", "/networks/demo/disconnect").body == {"Container": "web", "Force": True}


@pytest.mark.parametrize(("reply", "asked"), [("y\n", ["POST /networks/prune"]), ("n\n", []), ("", [])])
def test_prune_asks_first(cli: Cli, cli_daemon: Daemon, monkeypatch: pytest.MonkeyPatch, reply: str, asked: list[str]) -> None:
    cli_daemon.answers["POST", "/networks/prune"] = (200, {"NetworksDeleted": ["a", "b"]})
    monkeypatch.setattr("sys.stdin", io.StringIO(reply))
    result = cli("network", "prune")

    assert cli_daemon.asked() == asked
    assert result.code == 0
    assert result.out.endswith("Deleted Networks:\na\nb\n\n" if asked else "[y/N] ")


def test_prune_force(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["POST", "/networks/prune"] = (200, {"NetworksDeleted": None})

    assert cli("network", "prune", "--force", "--filter", "until=24h") == (0, "", "")
    assert cli_daemon.only("POST", "/networks/prune").query == {"filters": '{"until": {"24h": true}}'}


def test_natural_order() -> None:
    assert sorted(["b", "a10", "a2", "a", "10", "9"], key=natural) == ["9", "10", "a", "a2", "a10", "b"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], {}),
        (["--ipv6"], {"EnableIPv6": True}),
        (["--ipv6=true", "--ipv4=false"], {"EnableIPv6": True, "EnableIPv4": False}),
        (["--ipv6=false"], {"EnableIPv6": False}),
        (["--ipv4"], {"EnableIPv4": True}),
    ],
)
def test_ip_versions_are_said_only_where_the_user_says_them(cli: Cli, cli_daemon: Daemon, flags: list[str], said: dict[str, bool]) -> None:
    """What is left out may be the daemon's to choose."""
    cli_daemon.answers["POST", "/networks/create"] = (201, {"Id": ID, "Warning": ""})
    assert cli("network", "create", *flags, "demo") == (0, ID + "\n", "")
    body = cli_daemon.only("POST", "/networks/create").body
    assert {key: value for key, value in body.items() if key.startswith("EnableIP")} == said


def test_pools_of_both_ip_versions() -> None:
    found = pools(
        ["172.28.0.0/16", "fd00:9::/64", "10.1.0.0/24"],
        ["fd00:9::1", "172.28.0.254"],
        ["fd00:9::100/120", "10.1.0.128/25"],
        [("router", "fd00:9::2"), ("printer", "10.1.0.9")],
    )
    assert found == [
        {"Subnet": "172.28.0.0/16", "Gateway": "172.28.0.254"},
        {"Subnet": "fd00:9::/64", "IPRange": "fd00:9::100/120", "Gateway": "fd00:9::1", "AuxiliaryAddresses": {"router": "fd00:9::2"}},
        {"Subnet": "10.1.0.0/24", "IPRange": "10.1.0.128/25", "AuxiliaryAddresses": {"printer": "10.1.0.9"}},
    ]


def test_a_warning_is_said_beside_the_id(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["POST", "/networks/create"] = (201, {"Id": ID, "Warning": "subnet fd00::/64 has no effect"})
    assert cli("network", "create", "demo") == (0, ID + "\n", "WARNING: subnet fd00::/64 has no effect\n")


def test_ls_says_which_ip_versions_there_are(cli: Cli, cli_daemon: Daemon) -> None:
    six = _network("six", EnableIPv4=False, EnableIPv6=True)
    cli_daemon.answers["GET", "/networks"] = (200, [_network("old"), six])
    assert cli("network", "ls", "--format", "table {{.Name}}\t{{.IPv4}}\t{{.IPv6}}").out == (
        "NAME      IPV4      IPV6\nold       true      false\nsix       false     true\n"
    )


def test_connect_with_addresses_of_both_ip_versions(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["POST", "/networks/demo/connect"] = (200, b"")
    flags = "--ip 10.0.0.9 --ip6 fd00::9 --driver-opt com.docker.network.endpoint.ifname=lan0"
    assert cli("network", "connect", *flags.split(), "demo", "web") == (0, "", "")
    assert cli_daemon.only("POST", "/networks/demo/connect").body == {
        "Container": "web",
        "EndpointConfig": {
            "IPAMConfig": {"IPv4Address": "10.0.0.9", "IPv6Address": "fd00::9"},
            "DriverOpts": {"com.docker.network.endpoint.ifname": "lan0"},
        },
    }
