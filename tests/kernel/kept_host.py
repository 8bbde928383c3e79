"""One host for many tests. What a test leaves on it is taken away; a host that is then not what it was at first is exchanged for a new one.

A LAN and a daemon's start take longer than most of what is tested on them; looking whether all is as it was takes a tenth of that.
"""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

from tests.hosts import ApiError, Host, Lan, namespace_state
from tests.kernel.test_faults import command_line

NO_SERVER = "nameserver 127.0.0.1\n"
"""Hosts have no DNS server unless a test gives them one: a lookup of an unknown name is refused at once, not timed out."""
PATIENCE = 0.6
"""Seconds in which what was removed has gone."""
CHANGING = ("/nf_conntrack_count:", "/stable_secret:", "/tcp_fastopen_key:")


class KeptHost:
    """`host()` before a test, `take_back(host)` after it."""

    def __init__(self, *flags: str) -> None:
        self._flags = flags
        self._stack = contextlib.ExitStack()
        self._host: Host | None = None
        self._first: dict[str, Any] = {}

    def host(self) -> Host:
        if self._host is None:
            lan = self._stack.enter_context(Lan())
            self._host = self._stack.enter_context(Host(lan, *self._flags, resolv_conf=NO_SERVER))
            self._host.start()
            self._first = everything(self._host)
        return self._host

    def take_back(self, *, failed: bool) -> None:
        """After a failure nobody knows what the host is like."""
        if self._host is not None and (failed or not self._as_at_first(self._host)):
            self.close()

    def close(self) -> None:
        self._host = None
        self._stack.close()

    def _as_at_first(self, host: Host) -> bool:
        if identity(host) != self._first["identity"]:
            return False
        try:
            if host.api("GET", "/netplug/healing") != self._first["healing"]:
                return False  # what is damaged again and again is left alone: each test has its own count
            tidy(host, self._first)
            deadline = time.monotonic() + PATIENCE
            while everything(host) != self._first:
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.1)
        except (OSError, ApiError, RuntimeError):
            return False
        # Who talked to whom, and at which hardware address: the next test's containers are others with the same addresses.
        for namespace in (host.namespace, host.lan.outside):
            namespace.run("conntrack", "-F", check=False)
            namespace.ip("neigh", "flush", "all")
        host.log.write_bytes(b"")
        return True


def identity(host: Host) -> dict[str, Any]:
    """A daemon that runs, as a new host's does; it may have been started again."""
    running = command_line(host.daemon.pid) if host.daemon is not None and host.daemon.poll() is None else b""
    return {"daemon": running, "flags": host.flags, "environment": dict(host.environment)}


def tidy(host: Host, first: dict[str, Any]) -> None:
    """Takes away what most tests leave: containers, networks, images, links beside those at first, ways to containers."""
    for container in host.api("GET", "/containers/json?all=1"):
        host.api("DELETE", f"/containers/{container['Id']}?force=1")
    for network in host.api("GET", "/networks"):
        if network["Name"] not in ("bridge", "host", "none"):
            host.api("DELETE", f"/networks/{network['Id']}")
    for image in host.api("GET", "/images/json"):
        if image["Id"] not in {one["Id"] for one in first["records"]["/images/json"]}:
            host.api("DELETE", f"/images/{image['Id']}?force=1")
    links = {link["name"] for link in first["host"]["host"]["links"]}
    for link in json.loads(host.run("ip", "-j", "link").stdout):
        if link["ifname"] not in links and link["group"] == "default":
            host.namespace.ip("link", "del", link["ifname"])
    for version, address in (("-4", host.address), ("-6", host.address6)):
        host.lan.outside.ip(version, "route", "flush", "via", address)
    host.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=0")  # the first network with IPv6 has switched it on, for good


def everything(host: Host) -> dict[str, Any]:
    """Kernel, neighbours, mounts, files and records. The resolver may have come: it stays."""
    return {
        "identity": identity(host),
        "host": host.state(),
        "rules": host.run("sh", "-ec", "ip rule; ip -6 rule; cat /proc/net/ip_tables_names /proc/net/ip6_tables_names || true").stdout,
        "sysctls": sysctls(host),
        "lan": [namespace_state(namespace.path) for namespace in (host.lan.outside, host.lan.switch)],
        "records": {path: host.api("GET", path) for path in ("/networks", "/containers/json?all=1", "/images/json", "/netplug/ipam")},
        "healing": host.api("GET", "/netplug/healing"),
        "files": sorted(path.name for path in host.directory.iterdir()),
        "resolv.conf": host.resolv_conf.read_text(),
        "processes": [line for pid in host.processes() if b"netplug.resolver" not in (line := command_line(pid))],
    }


def sysctls(host: Host) -> list[str]:
    """All of the network's, but what the kernel itself changes."""
    told = host.run("grep", "-rs", "", "/proc/sys/net", check=False).stdout.splitlines()
    return sorted(line for line in told if not any(name in line for name in CHANGING))
