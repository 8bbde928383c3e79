"""What a container is told about its network: the files hostname, hosts and resolv.conf, and the variables that links set.

The files lie with the container's record and are bind-mounted into it, so they are always changed in place.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from netplug.errors import Conflict, InvalidArgument, NetplugError, NotFound
from netplug.model import DnsConfig, Endpoint
from netplug.runtime import hosts, links, resolvconf
from netplug.runtime.model import Container
from netplug.runtime.networking import DEFAULT_NETWORK, Controller, attachments, shares
from netplug.runtime.paths import Paths
from netplug.runtime.settings import RuntimeSettings
from netplug.runtime.watcher import CachedFile, read

NAMES = ("resolv.conf", "hostname", "hosts")
_IPV6_OFF = ("net.ipv6.conf.all.disable_ipv6", "net.ipv6.conf.lo.disable_ipv6")


class NetworkFiles:
    """`find` gives a container by name or id; NotFound if there is none."""

    def __init__(self, controller: Controller, paths: Paths, settings: RuntimeSettings, find: Callable[[str], Container]) -> None:
        self._controller, self._paths, self._settings, self._find = controller, paths, settings, find
        self._hosts_texts: dict[str, str] = {}
        """By container: what we have written last."""
        self._resolv_facts: dict[str, tuple[str, bool, bool]] = {}
        """By container: what its resolv.conf was made of then."""
        self._host_resolv_conf = CachedFile(Path(settings.resolv_conf))

    def hostname(self, container: Container) -> str:
        if container.config.hostname:
            return container.config.hostname
        if shares(container):
            return self.hostname(self._find(shares(container)))
        return os.uname().nodename if container.config.network_mode == "host" else container.id[:12]

    def file(self, container: Container, name: str) -> Path:
        """Where its hosts, resolv.conf or hostname lies: with the container whose network it shares, if it shares one."""
        if shares(container):
            return self.file(self._find(shares(container)), name)
        return self._paths.record(container.id) / name

    def write_files(self, container: Container) -> None:
        """Fresh files for a container that is about to start."""
        if shares(container):
            return
        hosts.write_in_place(self.file(container, "hostname"), f"{self.hostname(container)}\n")
        endpoints = self._controller.endpoints(sandbox=container.id)
        text, facts = self._hosts(container, endpoints), self._facts(endpoints)
        hosts.ManagedFile(self.file(container, "hosts")).write(text)
        resolvconf.ManagedFile(self.file(container, "resolv.conf")).write(self._resolv_conf(container, *facts))
        self._hosts_texts[container.id], self._resolv_facts[container.id] = text, facts

    def refresh_files(self, container: Container) -> None:
        """Bring the files of a running container up to date; called when its network, or the host's resolv.conf, has changed.

        What would say the same as before is not touched.
        """
        if shares(container):
            return
        endpoints = self._controller.endpoints(sandbox=container.id)
        text, facts = self._hosts(container, endpoints), self._facts(endpoints)
        if self._hosts_texts.get(container.id) != text:
            hosts.ManagedFile(self.file(container, "hosts")).refresh(text)
            self._hosts_texts[container.id] = text
        if self._resolv_facts.get(container.id) != facts:
            resolvconf.ManagedFile(self.file(container, "resolv.conf")).refresh(self._resolv_conf(container, *facts))
            self._resolv_facts[container.id] = facts

    def forget(self, container: str) -> None:
        """Its files are gone."""
        self._hosts_texts.pop(container, None)
        self._resolv_facts.pop(container, None)

    def _hosts(self, container: Container, endpoints: Sequence[Endpoint]) -> str:
        extra = hosts.extra_lines(container.config.dns.extra_hosts, self.host_gateways)
        if container.config.network_mode == "host" and not extra:
            return read(Path("/etc/hosts"))
        # The way out that comes by itself is named last.
        ordered = sorted(endpoints, key=lambda endpoint: endpoint.implied)
        addresses = [address for endpoint in ordered for address in (endpoint.address, endpoint.address6)]
        linked = [
            links.line(alias, other, self.hostname(other), address)
            for alias, other, addresses in self._linked(container)
            for address in addresses
        ]
        own = hosts.own_lines(addresses, self.hostname(container), container.config.domainname)
        return hosts.hosts(extra, linked, own, ipv6=_may_have_ipv6(container))

    def _facts(self, endpoints: Sequence[Endpoint]) -> tuple[str, bool, bool]:
        """The host's resolv.conf, whether 127.0.0.11 answers on one of the networks, whether one gives it an IPv6 address."""
        resolver = any(not self._predefined(endpoint.network) for endpoint in endpoints)
        return self._host_resolv_conf.text(), resolver, any(endpoint.address6 for endpoint in endpoints)

    def _resolv_conf(self, container: Container, host: str, resolver: bool, ipv6: bool) -> str:
        dns = self.dns(container)
        if container.config.network_mode == "host" and not (dns.servers or dns.search or dns.options):
            return host
        return resolvconf.container(resolvconf.ResolvConf.from_text(host), dns, resolver=resolver, ipv6=ipv6).to_text()

    def _predefined(self, network: str) -> bool:
        try:
            return self._controller.network(network).predefined
        except NotFound:
            return False

    def dns(self, container: Container) -> DnsConfig:
        """Its settings, with the daemon's where it has none."""
        settings = self._settings
        return resolvconf.defaults(container.config.dns, settings.dns, settings.dns_search, settings.dns_opt)

    def host_gateways(self) -> list[str]:
        """What `host-gateway` stands for: the host's addresses on the default bridge, where containers reach it."""
        pools = self._controller.network(DEFAULT_NETWORK).pools
        gateways = [pool.gateway.partition("/")[0] for pool in pools if pool.gateway]
        if not gateways:
            raise InvalidArgument("unable to derive the IP value for host-gateway: the default bridge has no gateway")
        return gateways

    def link_environment(self, container: Container) -> list[str]:
        """The variables that links on the default bridge set. Conflict if a linked container does not run, or is not on it."""
        default = self._controller.network(DEFAULT_NETWORK).id if container.config.links else ""
        if default not in self._connected(container.id):
            return []
        for link in container.config.links:
            self._check_link(container, link, default)
        return [
            variable
            for alias, other, addresses in self._linked(container)
            for variable in links.environment(container, alias, other, addresses[0])
        ]

    def _check_link(self, container: Container, link: str, default: str) -> None:
        name, alias = links.parse(link)
        try:
            other = self._find(name)
        except NotFound:
            other = None  # removed: that the link is why is what must be said
        if other is None or other.status != "running":
            raise Conflict(f"Cannot link to a non running container: /{name} AS /{container.name}/{alias}")
        if default not in self._connected(other.id):
            raise Conflict(f"Cannot link to /{other.name}, as it does not belong to the default network")

    def _connected(self, container: str) -> set[str]:
        return {endpoint.network for endpoint in self._controller.endpoints(sandbox=container)}

    def _linked(self, container: Container) -> list[tuple[str, Container, list[str]]]:
        """(alias, container, addresses) of each link whose container can be reached on a common network now, IPv4 first."""
        wanted = [*container.config.links, *(link for attachment in attachments(container) for link in attachment.links)]
        found = []
        mine = self._connected(container.id) if wanted else set()
        for name, alias in map(links.parse, wanted):
            try:
                other = self._find(name)
            except NetplugError:
                continue
            shared = [endpoint for endpoint in self._controller.endpoints(sandbox=other.id) if endpoint.network in mine]
            addresses = [address.partition("/")[0] for address in (shared[0].address, shared[0].address6) if address] if shared else []
            if addresses:
                found.append((alias, other, addresses))
        return found


def _may_have_ipv6(container: Container) -> bool:
    """Not where the kernel has none, nor where the user has switched it off in this container."""
    return _has_ipv6() and not any(container.config.sysctls.get(switch) == "1" for switch in _IPV6_OFF)


@cache
def _has_ipv6() -> bool:
    """Whether the kernel has it: that does not change."""
    return os.path.exists("/proc/net/if_inet6")
