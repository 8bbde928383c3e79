"""How a daemon is set up: the flags of `netplug daemon`, which are also the names in its TOML file."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Literal, TypeAlias, get_args

import msgspec

from netplug.addressing import AddressPools
from netplug.controller.requests import NetworkRequest
from netplug.errors import InvalidArgument
from netplug.kernel.firewall.ruleset import parse_mark
from netplug.model import PoolConfig
from netplug.plan import Plan, Sysctl
from netplug.words import check_files

BRIDGE = "com.docker.network.bridge."
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
NODE_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


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
    ipv6: bool = False
    """The default bridge has IPv6 too."""
    bip6: str = ""
    fixed_cidr_v6: str = ""
    """`bip` and `fixed_cidr` for IPv6; without `bip6`, `fixed_cidr_v6` is the default bridge's whole subnet."""
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
    allow_direct_routing: bool = False
    """Published ports of containers are reached from outside by the containers' own addresses too."""
    default_network_opt: tuple[str, ...] = ()
    """`DRIVER=KEY=VALUE` each: driver options of new networks that say nothing else."""
    heal: bool = True
    """Put back what somebody else takes away of ours."""
    store: str = ""
    """The cluster's: `etcd://HOST:PORT,…[/PREFIX]`; `""`: this host is alone."""
    store_ca: str = ""
    store_cert: str = ""
    store_key: str = ""
    store_user: str = ""
    """`NAME:PASSWORD`, or `NAME` with the password in the environment, NETPLUG_STORE_PASSWORD."""
    node: str = ""
    """This node's name in the cluster; `""`: the host's."""
    advertise: str = ""
    """The address by which other nodes reach this one, or the interface that has it."""
    vxlan_port: int = 4789
    """UDP port of overlay networks, the same on all nodes."""
    docker_plugin: str = ""
    """Socket on which the Docker Engine finds netplug as its plugin; `""`: it does not."""
    docker_host: str = "unix:///run/docker.sock"
    """That engine's API, which is asked for the names of its networks and containers."""
    runtime: str = "runc"
    resolv_conf: str = "/etc/resolv.conf"
    log_level: LogLevel = "info"

    def address_pools(self, seed: str = "") -> AddressPools:
        """`seed` is this daemon's alone: its networks' unique local addresses come of it."""
        return AddressPools(local=tuple(_address_pool(text) for text in self.default_address_pool), seed=seed)

    @property
    def backend(self) -> str:
        """The firewall backend's name."""
        return self.firewall_backend if self.iptables else "none"

    @property
    def default_network_options(self) -> dict[str, dict[str, str]]:
        """By driver: options of new networks that say nothing else."""
        found: dict[str, dict[str, str]] = {}
        for text in self.default_network_opt:
            driver, key, value = _network_option(text)
            found.setdefault(driver, {})[key] = value
        return found

    def host_plan(self) -> Plan:
        """What the host needs whatever networks there are."""
        return (Sysctl(key="net.ipv4.ip_forward", value="1"),) if self.ip_forward else ()

    def predefined_networks(self) -> list[NetworkRequest]:
        """`none`, `host` and, unless `--bridge none`, `bridge`."""
        networks = [NetworkRequest(name="none", driver="null"), NetworkRequest(name="host", driver="host")]
        if self.bridge != "none":
            pools = (*self._bridge_pool(), *self._bridge_pool6())
            networks.append(NetworkRequest(name="bridge", driver="bridge", ipv6=self.ipv6, options=self._bridge_options(), pools=pools))
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
        return _pool("--bip", self.bip, "--fixed-cidr", self.fixed_cidr, 4)

    def _bridge_pool6(self) -> tuple[PoolConfig, ...]:
        for flag, value in (("--bip6", self.bip6), ("--fixed-cidr-v6", self.fixed_cidr_v6)):
            if value and not self.ipv6:
                raise InvalidArgument(f"invalid {flag} {value}: the default bridge has IPv6 only with --ipv6")
        return _pool("--bip6", self.bip6, "--fixed-cidr-v6", self.fixed_cidr_v6, 6)


def _pool(bip_flag: str, bip: str, fixed_flag: str, fixed: str, version: int) -> tuple[PoolConfig, ...]:
    """The default bridge's pool of one IP version; none: it is IPAM's choice."""
    if not bip:
        return (PoolConfig(subnet=str(_subnet(fixed_flag, fixed, version))),) if fixed else ()
    interface = _interface(bip_flag, bip, version)
    part = _subnet(fixed_flag, fixed, version) if fixed else None
    subnet = interface.network
    if part is not None and not (part.network_address in subnet and part.prefixlen >= subnet.prefixlen):
        raise InvalidArgument(f"invalid {fixed_flag} {fixed}: it is not part of {bip_flag}'s subnet {subnet}")
    return (PoolConfig(subnet=str(subnet), gateway=str(interface.ip), ip_range=str(part or "")),)


_EXAMPLES = {4: ("192.168.5.1/24", "192.168.5.128/25"), 6: ("fd00:5::1/64", "fd00:5::/64")}


def _interface(flag: str, text: str, version: int) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface:
    try:
        interface = ipaddress.ip_interface(text)
        if "/" not in text or interface.version != version:
            raise ValueError
    except ValueError:
        raise InvalidArgument(f"invalid {flag} {text}: an address with its prefix is needed, as in {_EXAMPLES[version][0]}") from None
    return interface


def _subnet(flag: str, text: str, version: int) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        subnet = ipaddress.ip_network(text)
        if subnet.version != version:
            raise ValueError
    except ValueError:
        raise InvalidArgument(f"invalid {flag} {text}: a subnet is needed, as in {_EXAMPLES[version][1]}") from None
    return subnet


def decode(values: dict[str, Any]) -> Settings:
    """Settings from flags or TOML; InvalidArgument says which value is wrong. `config` among them is the name of the file."""
    settings = _converted(_in_our_words({key.replace("-", "_"): value for key, value in values.items()}))
    if not 1 <= settings.vxlan_port <= 65535:
        raise InvalidArgument(f"invalid --vxlan-port {settings.vxlan_port}: a number from 1 to 65535 is needed")
    if settings.mtu and not 68 <= settings.mtu <= 65535:
        raise InvalidArgument(f"invalid --mtu {settings.mtu}: a number from 68 to 65535 is needed")
    check_files(settings.dns, settings.dns_search, settings.dns_opt)
    for address in settings.dns:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise InvalidArgument(f"{address} is not an ip address") from None
    try:
        ipaddress.IPv4Address(settings.ip or "0.0.0.0")
    except ValueError:
        raise InvalidArgument(f"invalid --ip {settings.ip}: an IPv4 address of this host is needed, as in 192.0.2.1") from None
    if settings.node and not NODE_NAME.fullmatch(settings.node):
        raise InvalidArgument(f'invalid --node "{settings.node}": only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed')
    _check_together(settings)
    settings.address_pools()
    settings.predefined_networks()
    return settings


def _converted(values: dict[str, Any]) -> Settings:
    """A flag has the type of its setting: a type that is wrong, and a name that is none, are the file's."""
    file = f" in {values.pop('config')}" if values.get("config") else ""
    level = values.get("log_level")
    if isinstance(level, str) and level not in get_args(LogLevel):
        raise InvalidArgument(f"invalid --log-level {level}: debug, info, warning or error is needed")
    try:
        return msgspec.convert(values, Settings)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid configuration{file}: {error}") from None


def _in_our_words(values: dict[str, Any]) -> dict[str, Any]:
    """Docker's words for a cluster, as they were before its swarms."""
    for theirs, ours in (("cluster_store", "store"), ("cluster_advertise", "advertise")):
        if theirs in values:
            values.setdefault(ours, values.pop(theirs))
            values.pop(theirs, None)
    return values


def _check_together(settings: Settings) -> None:
    """What only the others of the flags can tell."""
    if not settings.iptables and settings.firewall_backend not in ("nftables", "none"):
        raise InvalidArgument(
            f"--iptables=false means no firewall of ours, but --firewall-backend {settings.firewall_backend} asks for one"
        )
    if settings.bridge_accept_fwmark:
        parse_mark(settings.bridge_accept_fwmark)
    if settings.bridge_accept_fwmark and settings.backend == "none":
        raise InvalidArgument("--bridge-accept-fwmark has no effect without a firewall of ours: leave it out, or --iptables=false")
    if settings.allow_direct_routing and settings.backend == "none":
        raise InvalidArgument("--allow-direct-routing has no effect without a firewall of ours: leave it out, or --iptables=false")
    _ = settings.default_network_options


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


def _network_option(text: str) -> tuple[str, str, str]:
    """`bridge=com.docker.network.driver.mtu=1400` in its three parts."""
    driver, _, option = text.partition("=")
    key, equals, value = option.partition("=")
    if not (driver and key and equals):
        raise InvalidArgument(f"invalid --default-network-opt {text}: DRIVER=KEY=VALUE is needed")
    return driver, key, value
