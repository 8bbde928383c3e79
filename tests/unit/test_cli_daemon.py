"""`netplug daemon`: flags and file become settings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_fixtures import Cli

import netplug.daemon
from netplug import settings
from netplug.cli.daemon import daemon_command


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the daemon was called with, each time."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(netplug.daemon, "run", lambda values, reception: calls.append(values) or 7)
    return calls


def test_nothing_said_is_the_daemons_own_defaults(cli: Cli, ran: list[dict[str, Any]]) -> None:
    assert cli("daemon").code == 7
    assert ran == [{}]


def test_flags(cli: Cli, ran: list[dict[str, Any]]) -> None:
    flags = """--socket /s --state-dir /a --run-dir=/b --firewall-backend nftables --default-address-pool base=10.0.0.0/8,size=24
        --default-address-pool base=192.168.0.0/16,size=24 --bip 10.9.0.1/24 --fixed-cidr 10.9.0.128/25 --bridge br0 --mtu 1400
        --dns 1.1.1.1 --dns 9.9.9.9 --dns-search a.example --dns-opt ndots:2 --icc=false --ip 10.0.0.1 --ip-forward false --ip-masq
        --ipv6 --bip6 fd00:5::1/64 --fixed-cidr-v6 fd00:5::100/120 --iptables=true --bridge-accept-fwmark 0x1000/0xf000 --no-heal
        --allow-direct-routing --default-network-opt bridge=com.docker.network.driver.mtu=1400 --default-network-opt macvlan=parent=eth0
        --log-level debug"""
    cli("daemon", *flags.split())

    assert ran == [
        {
            "socket": "/s",
            "state_dir": "/a",
            "run_dir": "/b",
            "firewall_backend": "nftables",
            "default_address_pool": ("base=10.0.0.0/8,size=24", "base=192.168.0.0/16,size=24"),
            "bip": "10.9.0.1/24",
            "fixed_cidr": "10.9.0.128/25",
            "bridge": "br0",
            "mtu": 1400,
            "dns": ("1.1.1.1", "9.9.9.9"),
            "dns_search": ("a.example",),
            "dns_opt": ("ndots:2",),
            "icc": False,
            "ip": "10.0.0.1",
            "ip_forward": False,
            "ip_masq": True,
            "ipv6": True,
            "bip6": "fd00:5::1/64",
            "fixed_cidr_v6": "fd00:5::100/120",
            "iptables": True,
            "bridge_accept_fwmark": "0x1000/0xf000",
            "heal": False,
            "allow_direct_routing": True,
            "default_network_opt": ("bridge=com.docker.network.driver.mtu=1400", "macvlan=parent=eth0"),
            "log_level": "debug",
        }
    ]
    assert settings.decode(ran[0]).mtu == 1400


def test_every_flag_is_a_setting() -> None:
    ours = {parameter.name for parameter in daemon_command.params} - {"config", "dry_run"}

    assert ours <= set(settings.Settings.__struct_fields__) | {"cluster_store", "cluster_advertise"}


def test_docker_s_words_for_a_cluster() -> None:
    chosen = settings.decode({"cluster-store": "etcd://10.0.0.1:2379", "cluster-advertise": "eth0:2376"})

    assert (chosen.store, chosen.advertise) == ("etcd://10.0.0.1:2379", "eth0:2376")


def test_flags_win_over_the_file(cli: Cli, ran: list[dict[str, Any]], tmp_path: Path) -> None:
    file = tmp_path / "netplug.toml"
    file.write_text('mtu = 1300\nbridge = "br1"\nstate-dir = "/x"\ndns = ["1.1.1.1"]\nip_masq = false\n')
    cli("daemon", "--config", str(file), "--mtu", "1400")

    assert ran == [{"mtu": 1400, "bridge": "br1", "state_dir": "/x", "dns": ["1.1.1.1"], "ip_masq": False, "config": str(file)}]
    assert settings.decode(ran[0]).bridge == "br1"


def test_files_that_cannot_be_read(cli: Cli, ran: list[dict[str, Any]], tmp_path: Path) -> None:
    file = tmp_path / "netplug.toml"
    file.write_text("mtu = = 3")

    assert cli("daemon", "--config", "/nosuch") == (1, "", "netplug daemon: cannot read /nosuch: No such file or directory\n")
    assert cli("daemon", "--config", str(file)).err.startswith(f"netplug daemon: {file} is not TOML: ")
    assert ran == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("foo = 1", "invalid configuration in {}: Object contains unknown field `foo`"),
        ('mtu = "x"', "invalid configuration in {}: Expected `int`, got `str` - at `$.mtu`"),
        ("ip_forward = true\nip-forward = false", "{} says ip_forward twice, with - and with _: leave one out"),
        ('config = "other"', "{} cannot name another file: leave config out"),
    ],
)
def test_what_a_file_says_wrong_is_said_with_its_name(cli: Cli, tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "netplug.toml"
    file.write_text(text)
    assert cli("daemon", "--dry-run", "--config", str(file)).err == f"netplug daemon: {sentence.format(file)}\n"


@pytest.mark.parametrize(
    ("args", "code", "sentence"),
    [
        (["--mtu", "x"], 125, 'invalid argument "x" for "--mtu" flag: strconv.ParseInt: parsing "x": invalid syntax'),
        (["--icc", "maybe"], 125, 'invalid argument "maybe" for "--icc" flag: strconv.ParseBool: parsing "maybe": invalid syntax'),
        (["extra"], 1, '"netplug daemon" accepts no arguments.'),
        (["--ipv6", "maybe"], 125, 'invalid argument "maybe" for "--ipv6" flag: strconv.ParseBool: parsing "maybe": invalid syntax'),
        (["--dry-run", "--bip", "x"], 1, "netplug daemon: invalid --bip x: an address with its prefix is needed, as in 192.168.5.1/24"),
    ],
)
def test_bad_flags(cli: Cli, args: list[str], code: int, sentence: str) -> None:
    result = cli("daemon", *args)

    assert (result.code, result.err.splitlines()[0]) == (code, sentence)


def test_a_dry_run_prints_what_a_first_start_runs(cli: Cli, ran: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netplug.daemon, "explain", lambda values: ["sysctl -w net.ipv4.ip_forward=1", f"# {values['bridge']}"])

    assert cli("daemon", "--dry-run", "--bridge", "br0").out.splitlines() == ["sysctl -w net.ipv4.ip_forward=1", "# br0"]
    assert ran == []


def test_its_start_reads_no_certificate_authorities(tmp_path: Path) -> None:
    """In a process that has not imported aiohttp yet; with what the environment says before and afterwards as a control."""
    authority = str(tmp_path / "authority.pem")
    asked = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=authority"]
    subprocess.run([*asked, "-keyout", os.devnull, "-out", authority], check=True, capture_output=True)
    code = """if True:
        import ssl
        from netplug.cli.daemon import without_authorities
        def trusted(context):
            return context.cert_store_stats()["x509_ca"]
        print(trusted(ssl.create_default_context()))
        with without_authorities():
            from netplug import daemon
        from aiohttp import connector
        print(trusted(connector._SSL_CONTEXT_VERIFIED), trusted(ssl.create_default_context()))"""
    environment = {**os.environ, "SSL_CERT_FILE": authority}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout

    assert told.split() == ["1", "0", "1"]
