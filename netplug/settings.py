"""How a daemon is set up: the flags of `netplug daemon`, which are also the names in its TOML file."""

from __future__ import annotations

import ipaddress
from typing import Any, Literal

import msgspec

from netplug.addressing import AddressPools
from netplug.controller.requests import NetworkRequest
from netplug.errors import InvalidArgument
from netplug.model import PoolConfig
from netplug.plan import Plan, Sysctl

BRIDGE = "com.docker.network.bridge."


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names as the flags, with `_` for `-`."""

    socket: str = "/run/netplug/netplug.sock"
    state_dir: str = "/var/lib/netplug"
    run_dir: str = "/run/netplug"
    firewall_backend: str = "nftables"
    default_address_pool: tuple[str, ...] = ()
    """`base=CIDR,size=N` each."""
    bip: str = ""
    """Address and prefix of the default bridge."""
    fixed_cidr: str = ""
    """The part of the default bridge's subnet that containers get."""
    bridge: str = "netplug0"
    """The default bridge; `none`: no default network."""
    mtu: int = 0
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_opt: tuple[str, ...] = ()
    icc: bool = True
    ip: str = ""
    """Host address for ports of the default network that are published without one."""
    ip_forward: bool = True
    ip_masq: bool = True
    iptables: bool = True
    """False: no firewall rules of ours at all; the backend is `none`."""
    bridge_accept_fwmark: str = ""
    """`MARK[/MASK]`: packets with that mark are let into every network, whoever sends them."""
    heal: bool = True
    """Put back what somebody else takes away of ours."""
    runtime: str = "runc"
    resolv_conf: str = "/etc/resolv.conf"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    def address_pools(self) -> AddressPools:
        return AddressPools(local=tuple(_address_pool(text) for text in self.default_address_pool))

    def host_plan(self) -> Plan:
        """What the host needs whatever networks there are."""
        return (Sysctl(key="net.ipv4.ip_forward", value="1"),) if self.ip_forward else ()

    def predefined_networks(self) -> list[NetworkRequest]:
        """`none`, `host` and, unless `--bridge none`, `bridge`."""
        networks = [NetworkRequest(name="none", driver="null"), NetworkRequest(name="host", driver="host")]
        if self.bridge != "none":
            networks.append(NetworkRequest(name="bridge", driver="bridge", options=self._bridge_options(), pools=self._bridge_pool()))
        return networks

    def _bridge_options(self) -> dict[str, str]:
        options = {
            f"{BRIDGE}default_bridge": "true",
            f"{BRIDGE}enable_icc": str(self.icc).lower(),
            f"{BRIDGE}enable_ip_masquerade": str(self.ip_masq).lower(),
            f"{BRIDGE}host_binding_ipv4": self.ip or "0.0.0.0",
            f"{BRIDGE}name": self.bridge,
        }
        if self.mtu:
            options["com.docker.network.driver.mtu"] = str(self.mtu)
        return options

    def _bridge_pool(self) -> tuple[PoolConfig, ...]:
        if self.bip:
            try:
                bip = ipaddress.IPv4Interface(self.bip)
                if "/" not in self.bip:
                    raise ValueError
            except ValueError:
                raise InvalidArgument(f"invalid --bip {self.bip}: an address with its prefix is needed, as in 192.168.5.1/24") from None
            return (PoolConfig(subnet=str(bip.network), gateway=str(bip.ip), ip_range=self._fixed(bip.network)),)
        if self.fixed_cidr:
            return (PoolConfig(subnet=self._fixed(None)),)
        return ()

    def _fixed(self, within: ipaddress.IPv4Network | None) -> str:
        if not self.fixed_cidr:
            return ""
        try:
            fixed = ipaddress.IPv4Network(self.fixed_cidr)
        except ValueError:
            raise InvalidArgument(f"invalid --fixed-cidr {self.fixed_cidr}: a subnet is needed, as in 192.168.5.128/25") from None
        if within is not None and not fixed.subnet_of(within):
            raise InvalidArgument(f"invalid --fixed-cidr {self.fixed_cidr}: it is not part of --bip's subnet {within}")
        return str(fixed)


def decode(values: dict[str, Any]) -> Settings:
    """Settings from flags or TOML; InvalidArgument says which value is wrong."""
    try:
        settings = msgspec.convert({key.replace("-", "_"): value for key, value in values.items()}, Settings)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid configuration: {error}") from None
    if settings.mtu and not 68 <= settings.mtu <= 65535:
        raise InvalidArgument(f"invalid --mtu {settings.mtu}: a number from 68 to 65535 is needed")
    for address in (*settings.dns, *((settings.ip,) if settings.ip else ())):
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise InvalidArgument(f"{address} is not an ip address") from None
    settings.address_pools()
    settings.predefined_networks()
    return settings


def _address_pool(text: str) -> tuple[str, int]:
    """`base=10.10.0.0/16,size=24` -> `("10.10.0.0/16", 24)`."""
    fields = dict(field.split("=", 1) for field in text.split(",") if "=" in field)
    try:
        base, size = ipaddress.ip_network(fields["base"]), int(fields["size"])
        if set(fields) != {"base", "size"} or not base.prefixlen <= size <= base.max_prefixlen:
            raise ValueError
    except (KeyError, ValueError):
        raise InvalidArgument(
            f"invalid --default-address-pool {text}: base=CIDR,size=N is needed, N the prefix length of each subnet"
        ) from None
    return str(base), size
