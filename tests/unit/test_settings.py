"""The daemon's settings: what they make of the default bridge and of the firewall, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest

from netplug.errors import InvalidArgument
from netplug.model import PoolConfig
from netplug.settings import decode


def bridge_pools(**values: Any) -> tuple[PoolConfig, ...]:
    (bridge,) = [network for network in decode(values).predefined_networks() if network.name == "bridge"]
    return bridge.pools


@pytest.mark.parametrize(
    ("values", "pools"),
    [
        ({}, ()),
        ({"bip": "10.9.0.1/24"}, (PoolConfig(subnet="10.9.0.0/24", gateway="10.9.0.1"),)),
        (
            {"bip": "10.9.0.1/24", "fixed-cidr": "10.9.0.128/25"},
            (PoolConfig(subnet="10.9.0.0/24", gateway="10.9.0.1", ip_range="10.9.0.128/25"),),
        ),
        ({"fixed_cidr": "10.9.0.0/25"}, (PoolConfig(subnet="10.9.0.0/25"),)),
        ({"ipv6": True}, ()),
        ({"ipv6": True, "bip6": "fd00:5::9/64"}, (PoolConfig(subnet="fd00:5::/64", gateway="fd00:5::9"),)),
        ({"ipv6": True, "fixed-cidr-v6": "fd00:5::/80"}, (PoolConfig(subnet="fd00:5::/80"),)),
        (
            {"ipv6": True, "bip": "10.9.0.1/24", "bip6": "fd00:5::1/64", "fixed_cidr_v6": "fd00:5::100/120"},
            (
                PoolConfig(subnet="10.9.0.0/24", gateway="10.9.0.1"),
                PoolConfig(subnet="fd00:5::/64", gateway="fd00:5::1", ip_range="fd00:5::100/120"),
            ),
        ),
    ],
)
def test_pools_of_the_default_bridge(values: dict[str, Any], pools: tuple[PoolConfig, ...]) -> None:
    assert bridge_pools(**values) == pools


@pytest.mark.parametrize("ipv6", [False, True])
def test_the_default_bridge_has_ipv6_if_asked_for(ipv6: bool) -> None:
    (bridge,) = [network for network in decode({"ipv6": ipv6}).predefined_networks() if network.name == "bridge"]
    assert (bridge.ipv4, bridge.ipv6) == (True, ipv6)


@pytest.mark.parametrize(
    ("values", "backend"),
    [
        ({}, "nftables"),
        ({"firewall_backend": "iptables"}, "iptables"),
        ({"firewall_backend": "none"}, "none"),
        ({"iptables": False}, "none"),
        ({"iptables": False, "firewall_backend": "none"}, "none"),
    ],
)
def test_the_firewall_backend(values: dict[str, Any], backend: str) -> None:
    assert decode(values).backend == backend


@pytest.mark.parametrize("text", ["", "0x1000", "4096/0xf000", "1/1"])
def test_marks(text: str) -> None:
    assert decode({"bridge_accept_fwmark": text}).bridge_accept_fwmark == text


def test_options_of_new_networks() -> None:
    given = ("bridge=a=1", "macvlan=parent=eth0", "bridge=b=x=y", "bridge=c=")
    assert decode({"default_network_opt": given}).default_network_options == {
        "bridge": {"a": "1", "b": "x=y", "c": ""},
        "macvlan": {"parent": "eth0"},
    }


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"bip": "10.9.0.1"}, "invalid --bip 10.9.0.1: an address with its prefix is needed, as in 192.168.5.1/24"),
        ({"bip": "fd00::1/64"}, "invalid --bip fd00::1/64: an address with its prefix is needed, as in 192.168.5.1/24"),
        ({"fixed_cidr": "10.9.0.1/24"}, "invalid --fixed-cidr 10.9.0.1/24: a subnet is needed, as in 192.168.5.128/25"),
        (
            {"bip": "10.9.0.1/24", "fixed_cidr": "10.8.0.0/25"},
            "invalid --fixed-cidr 10.8.0.0/25: it is not part of --bip's subnet 10.9.0.0/24",
        ),
        (
            {"bip": "10.9.0.1/24", "fixed_cidr": "10.0.0.0/8"},
            "invalid --fixed-cidr 10.0.0.0/8: it is not part of --bip's subnet 10.9.0.0/24",
        ),
        ({"bip6": "fd00::1/64"}, "invalid --bip6 fd00::1/64: the default bridge has IPv6 only with --ipv6"),
        ({"fixed_cidr_v6": "fd00::/64"}, "invalid --fixed-cidr-v6 fd00::/64: the default bridge has IPv6 only with --ipv6"),
        ({"ipv6": True, "bip6": "10.0.0.1/8"}, "invalid --bip6 10.0.0.1/8: an address with its prefix is needed, as in fd00:5::1/64"),
        ({"ipv6": True, "fixed_cidr_v6": "x"}, "invalid --fixed-cidr-v6 x: a subnet is needed, as in fd00:5::/64"),
        (
            {"ipv6": True, "bip6": "fd00:5::1/64", "fixed_cidr_v6": "fd00:6::/80"},
            "invalid --fixed-cidr-v6 fd00:6::/80: it is not part of --bip6's subnet fd00:5::/64",
        ),
        ({"ip": "fd00::1"}, "invalid --ip fd00::1: an IPv4 address of this host is needed, as in 192.0.2.1"),
        ({"dns": ("here",)}, "here is not an ip address"),
        ({"dns": ("fe80::1%a b",)}, "invalid DNS server 'fe80::1%a b': white space and control characters are not allowed"),
        ({"dns_search": ("a b",)}, "invalid DNS search domain 'a b': white space and control characters are not allowed"),
        ({"dns_opt": ("x\ny",)}, r"invalid DNS option 'x\ny': white space and control characters are not allowed"),
        ({"log_level": "loud"}, "invalid --log-level loud: debug, info, warning or error is needed"),
        ({"node": "a b"}, 'invalid --node "a b": only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed'),
        ({"default_network_opt": ("bridge",)}, "invalid --default-network-opt bridge: DRIVER=KEY=VALUE is needed"),
        ({"default_network_opt": ("bridge=mtu",)}, "invalid --default-network-opt bridge=mtu: DRIVER=KEY=VALUE is needed"),
        (
            {"iptables": False, "firewall_backend": "iptables"},
            "--iptables=false means no firewall of ours, but --firewall-backend iptables asks for one",
        ),
        (
            {"iptables": False, "bridge_accept_fwmark": "1"},
            "--bridge-accept-fwmark has no effect without a firewall of ours: leave it out, or --iptables=false",
        ),
        (
            {"firewall_backend": "none", "allow_direct_routing": True},
            "--allow-direct-routing has no effect without a firewall of ours: leave it out, or --iptables=false",
        ),
    ],
)
def test_settings_that_make_no_sense(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        decode(values)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("text", ["x", "0", "0/0xff", "0x100/0xff", "1/", "-1", "0x100000000"])
def test_marks_that_are_none(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^invalid --bridge-accept-fwmark .*: MARK or MARK/MASK is needed"):
        decode({"bridge_accept_fwmark": text})
