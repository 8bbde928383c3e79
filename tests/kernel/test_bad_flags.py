"""A daemon that cannot start as it was told says why in one line, and leaves the host as it was."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from netplug.kernel.namespaces import open_socket
from tests import nursery
from tests.hosts import OUTSIDE_ADDRESS, Host, Lan
from tests.kernel.bad_lines import complaint

FLAGS = [
    ("--bip nope", 1, "invalid --bip nope: an address with its prefix is needed"),
    ("--bip 10.5.0.1", 1, "invalid --bip 10.5.0.1: an address with its prefix is needed"),
    ("--bip 10.5.0.0/24", 1, "failed to allocate gateway (10.5.0.0): Address already in use"),
    ("--bip 203.0.113.99/24", 1, "which this host reaches by a route of its own"),
    ("--bip 10.5.0.1/24 --fixed-cidr 10.6.0.0/25", 1, "it is not part of --bip's subnet 10.5.0.0/24"),
    ("--fixed-cidr nope", 1, "invalid --fixed-cidr nope"),
    ("--default-address-pool nope", 1, "invalid --default-address-pool nope: base=CIDR,size=N is needed"),
    ("--default-address-pool base=10.0.0.0/8,size=4", 1, "invalid --default-address-pool base=10.0.0.0/8,size=4"),
    ("--default-address-pool base=10.0.0.1/8,size=24", 1, "invalid --default-address-pool base=10.0.0.1/8,size=24"),
    ("--firewall-backend nope", 1, 'unknown firewall backend "nope"'),
    ("--mtu 67", 1, "invalid --mtu 67"),
    ("--mtu nope", 125, 'strconv.ParseInt: parsing "nope": invalid syntax'),
    ("--icc=maybe", 125, 'strconv.ParseBool: parsing "maybe": invalid syntax'),
    ("--dns nope", 1, "nope is not an ip address"),
    ("--ip nope", 1, "invalid --ip nope: an IPv4 address of this host is needed"),
    ("--bip6 fd00:5::1/64", 1, "invalid --bip6 fd00:5::1/64: the default bridge has IPv6 only with --ipv6"),
    ("--ipv6 --bip6 nope", 1, "invalid --bip6 nope: an address with its prefix is needed"),
    ("--ipv6 --fixed-cidr-v6 nope", 1, "invalid --fixed-cidr-v6 nope: a subnet is needed"),
    ("--bridge-accept-fwmark nope", 1, 'invalid --bridge-accept-fwmark "nope": MARK or MARK/MASK is needed'),
    (
        "--default-network-opt bridge=com.docker.network.bridge.gateway_mode_ipv4=wrong",
        1,
        "invalid --default-network-opt bridge=com.docker.network.bridge.gateway_mode_ipv4=wrong: invalid value for",
    ),
    ("--default-network-opt nope", 1, "invalid --default-network-opt nope: DRIVER=KEY=VALUE is needed"),
    ("--iptables=false --firewall-backend iptables", 1, "--iptables=false means no firewall of ours"),
    ("--bridge a/b", 1, 'invalid bridge name "a/b"'),
    ("--bridge uplink", 1, "uplink is there already, and it is no bridge"),
    ("--log-level nope", 1, "invalid --log-level nope: debug, info, warning or error is needed"),
    ("--runtime nope", 1, "nope is not installed"),
    ("--nope", 125, "unknown flag: --nope"),
    ("nope", 1, '"netplug daemon" accepts no arguments.'),
    ("--socket /nope/netplug.sock", 1, "cannot listen on /nope/netplug.sock: there is no directory /nope"),
    ("--run-dir /dev/null/x", 1, "Not a directory: /dev/null/x"),
    ("--config /nope", 1, "cannot read /nope: No such file or directory"),
    ("--config {nope = 1}", 1, "Object contains unknown field `nope`"),
    ("--config {mtu = 'x'}", 1, "Expected `int`, got `str` - at `$.mtu`"),
    ("--config {= =}", 1, "is not TOML"),
]


@pytest.fixture(scope="module")
def bare_host() -> Iterator[Host]:
    """A host where no daemon ever comes up: its network must stay as it was, but for our tables and chains."""
    with Lan("flags") as lan, Host(lan) as host:
        before = host.state()["host"]["links"]
        yield host
        assert host.state()["host"]["links"] == before
        assert host.processes() == []


@pytest.mark.parametrize(("flags", "code", "sentence"), FLAGS, ids=[flags for flags, _, _ in FLAGS])
def test_a_daemon_that_cannot_start_says_why(bare_host: Host, tmp_path: Path, flags: str, code: int, sentence: str):
    """`{…}` stands for a file with that text."""
    if "{" in flags:
        flag, _, text = flags.partition(" ")
        (tmp_path / "netplug.toml").write_text(text[1:-1] + "\n")
        words = [flag, str(tmp_path / "netplug.toml")]
    else:
        words = shlex.split(flags)
    done = ended(bare_host, "daemon", "--socket", str(tmp_path / "s"), *places(bare_host, tmp_path), *words)
    assert sentence in complaint(done)
    assert (done.returncode, done.stdout) == (code, "")


def ended(host: Host, *arguments: str) -> subprocess.CompletedProcess[str]:
    return nursery.run(host.argv(*nursery.PROGRAM, *arguments), host.environment)


def places(host: Host, folder: Path) -> tuple[str, ...]:
    return ("--state-dir", str(folder / "state"), "--run-dir", str(host.run_directory))


@pytest.mark.parametrize("port", [4789, 8472])
def test_a_node_whose_tunnels_have_no_port_says_who_has_it(bare_host: Host, tmp_path: Path, port: int):
    """At once: before there is a rule, and before it asks the cluster's store, which is not there. So does `preflight`."""
    config = tmp_path / "netplug.toml"
    config.write_text(f'store = "etcd://{OUTSIDE_ADDRESS}:2379"\nadvertise = "{bare_host.address}"\nvxlan-port = {port}\n')
    sentence = f"UDP port {port} is in use on this host by .+, pid {os.getpid()}: give overlay networks another one, the same on all nodes"
    flags = (*places(bare_host, tmp_path), "--config", str(config))
    bare_host.run("nft", "flush", "ruleset")
    with open_socket(bare_host.namespace.path, socket.AF_INET, socket.SOCK_DGRAM) as program:
        program.bind(("0.0.0.0", port))
        done = ended(bare_host, "daemon", "--socket", str(tmp_path / "s"), *flags)
        assert re.search(rf"{sentence} \(the daemons' --vxlan-port, or ", complaint(done))
        assert (done.returncode, done.stdout, bare_host.run("nft", "list", "ruleset").stdout) == (1, "", "")
        assert re.search(sentence, ended(bare_host, "preflight", *flags).stdout)
    expected = f"other nodes reach this one at {bare_host.address}, UDP port {port}"
    assert expected in ended(bare_host, "preflight", *flags).stdout, "the control: nobody has it"


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--store", "etcd://u:secret@192.0.2.9"), "invalid --store: no user and no @ belong into it; give --store-user NAME[:PASSWORD]"),
        (("--store", "etcds://192.0.2.9"), "--store etcds://… needs --store-ca FILE: "),
        (("--store", "etcd://192.0.2.9", "--advertise", "lo"), "invalid --advertise lo: neither an address of this host"),
        (
            ("--store", "etcd://192.0.2.9", "--advertise", "127.0.0.1"),
            "invalid --advertise 127.0.0.1: no other node reaches a loopback",
        ),
    ],
)
def test_settings_of_a_cluster_that_cannot_be_meant_end_the_start(bare_host: Host, tmp_path: Path, flags: tuple[str, ...], sentence: str):
    """Before there is a rule, and without the password."""
    bare_host.run("nft", "flush", "ruleset")
    given = ("--advertise", bare_host.address) if "--advertise" not in flags else ()
    done = ended(bare_host, "daemon", "--socket", str(tmp_path / "s"), *places(bare_host, tmp_path), *flags, *given)
    assert complaint(done).startswith(f"netplug daemon: {sentence}")
    assert "secret" not in done.stderr
    assert (done.returncode, done.stdout, bare_host.run("nft", "list", "ruleset").stdout) == (1, "", "")
