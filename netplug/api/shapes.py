"""The bodies that clients send, as the Docker Engine API defines them (api/swagger.yaml of moby, version 1.47).

Only what netplug reads is named; msgspec passes over the rest, and `unsupported` tells the user of it where it would have mattered.
Names follow Go's: `ip_range` is `IPRange`. A JSON null means "not said" everywhere and is dropped before these shapes see it.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import field

Strings = tuple[str, ...]
OneOrMany = str | tuple[str, ...]
"""Docker takes `"top"` for `["top"]`."""
Empty = dict[str, Any]


class Body(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """Base of all shapes."""


class IpamPool(Body, frozen=True, kw_only=True):
    subnet: str = ""
    ip_range: str = field(default="", name="IPRange")
    gateway: str = ""
    auxiliary_addresses: dict[str, str] = {}


class Ipam(Body, frozen=True, kw_only=True):
    driver: str = ""
    options: dict[str, str] = {}
    config: tuple[IpamPool, ...] = ()


class ConfigFrom(Body, frozen=True, kw_only=True):
    network: str = ""


class NetworkCreate(Body, frozen=True, kw_only=True):
    """POST /networks/create."""

    name: str = ""
    driver: str = ""
    scope: str = ""
    enable_ipv4: bool | None = field(default=None, name="EnableIPv4")
    enable_ipv6: bool | None = field(default=None, name="EnableIPv6")
    ipam: Ipam = field(default=Ipam(), name="IPAM")
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: ConfigFrom = ConfigFrom()
    options: dict[str, str] = {}
    labels: dict[str, str] = {}


class EndpointIpam(Body, frozen=True, kw_only=True):
    ipv4_address: str = field(default="", name="IPv4Address")
    ipv6_address: str = field(default="", name="IPv6Address")
    link_local_ips: Strings = field(default=(), name="LinkLocalIPs")


class EndpointSettings(Body, frozen=True, kw_only=True):
    ipam_config: EndpointIpam = field(default=EndpointIpam(), name="IPAMConfig")
    links: Strings = ()
    aliases: Strings = ()
    mac_address: str = ""
    driver_opts: dict[str, str] = {}
    gw_priority: int = 0


class NetworkConnect(Body, frozen=True, kw_only=True):
    """POST /networks/{id}/connect."""

    container: str = ""
    endpoint_config: EndpointSettings = EndpointSettings()


class NetworkDisconnect(Body, frozen=True, kw_only=True):
    """POST /networks/{id}/disconnect."""

    container: str = ""
    force: bool = False


class HostPort(Body, frozen=True, kw_only=True):
    host_ip: str = ""
    host_port: str = ""


class BindMount(Body, frozen=True, kw_only=True):
    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False


class HostConfig(Body, frozen=True, kw_only=True):
    network_mode: str = ""
    port_bindings: dict[str, tuple[HostPort, ...]] = {}
    publish_all_ports: bool = False
    binds: Strings = ()
    mounts: tuple[BindMount, ...] = ()
    auto_remove: bool = False
    dns: Strings = ()
    dns_search: Strings = ()
    dns_options: Strings = ()
    extra_hosts: Strings = ()
    links: Strings = ()
    privileged: bool = False
    cap_add: Strings = ()
    cap_drop: Strings = ()
    sysctls: dict[str, str] = {}


class NetworkingConfig(Body, frozen=True, kw_only=True):
    endpoints_config: dict[str, EndpointSettings] = {}


class ContainerCreate(Body, frozen=True, kw_only=True):
    """POST /containers/create."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: Strings = ()
    cmd: OneOrMany = ()
    entrypoint: OneOrMany = ()
    image: str = ""
    working_dir: str = ""
    labels: dict[str, str] = {}
    exposed_ports: dict[str, Empty] = {}
    stop_signal: str = ""
    stop_timeout: int = 10
    mac_address: str = ""
    host_config: HostConfig = HostConfig()
    networking_config: NetworkingConfig = NetworkingConfig()


class ExecCreate(Body, frozen=True, kw_only=True):
    """POST /containers/{id}/exec."""

    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    detach: bool = False
    tty: bool = False
    cmd: OneOrMany = ()
    env: Strings = ()
    user: str = ""
    privileged: bool = False
    working_dir: str = ""


class ExecStart(Body, frozen=True, kw_only=True):
    """POST /exec/{id}/start."""

    detach: bool = False
    tty: bool = False
