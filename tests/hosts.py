"""Hosts for tests: what `netplug.cli.demo_hosts` builds, and eyes for it that are not ours (ip, bridge, nft, ping).

`Host.state()` and `machine_state()` give plain, comparable data: what the kernel says without indexes, handles, counters and timers.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from netplug.cli import demo_hosts
from netplug.cli.demo_hosts import (
    INTERNET_ADDRESS,
    INTERNET_ADDRESS6,
    OUTSIDE_ADDRESS,
    OUTSIDE_ADDRESS6,
    Lan,
    Namespace,
    command,
)
from netplug.cli.demo_traffic import Flood, Lookups, serving
from netplug.plan import RETIRED_GROUP
from tests import nursery

__all__ = [
    "INTERNET_ADDRESS",
    "INTERNET_ADDRESS6",
    "OUTSIDE_ADDRESS",
    "OUTSIDE_ADDRESS6",
    "Api",
    "ApiError",
    "Flood",
    "Host",
    "Lan",
    "Lookups",
    "Namespace",
    "command",
    "machine_state",
    "serving",
]

SYSCTLS = (
    "ipv4/ip_forward ipv4/conf/*/forwarding ipv4/conf/*/route_localnet ipv4/conf/*/rp_filter ipv4/conf/*/arp_notify "
    "ipv6/conf/*/disable_ipv6 bridge/*"
)
"""Below /proc/sys/net, as a shell expands it."""


class ApiError(Exception):
    """An answer of 400 or above; `message` is Docker's sentence."""

    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message
        super().__init__(f"{status}: {message}")


class Api(http.client.HTTPConnection):
    """One kept-alive connection to anything that speaks the Docker API on a unix socket."""

    def __init__(self, path: Path | str, timeout: float = 120) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)

    def call(self, method: str, path: str, body: Any = None, *, content_type: str = "application/json") -> Any:
        """The decoded answer: JSON, or text where it is none. `body`: bytes go as they are, everything else as JSON."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        self.request(method, path, data, {"Content-Type": content_type})
        answer = self.getresponse()
        text = answer.read()
        try:
            decoded = json.loads(text) if text else None
        except ValueError:
            decoded = text.decode()
        if answer.status >= 400:
            raise ApiError(answer.status, decoded["message"] if isinstance(decoded, dict) and "message" in decoded else str(decoded))
        return decoded


class Host(demo_hosts.Host):
    """A host with a netplug daemon, and what tests want to know of it."""

    def netplug(self, *arguments: str, check: bool = False, timeout: float = 60, stdin: str = "") -> subprocess.CompletedProcess[str]:
        done = nursery.run([*nursery.PROGRAM, *arguments], self.environment, stdin, timeout)
        if check and done.returncode:
            raise RuntimeError(f"netplug {' '.join(arguments)} failed with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
        return done

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """One API call; ApiError for an answer of 400 or above."""
        with contextlib.closing(Api(self.socket)) as connection:
            return connection.call(method, path, body)

    def container(self, reference: str) -> dict[str, Any]:
        """`inspect` of one container."""
        inspected: dict[str, Any] = self.api("GET", f"/containers/{reference}/json")
        return inspected

    def container_address(self, reference: str, network: str) -> str:
        return str(self.container(reference)["NetworkSettings"]["Networks"][network]["IPAddress"])

    def container_address6(self, reference: str, network: str) -> str:
        return str(self.container(reference)["NetworkSettings"]["Networks"][network]["GlobalIPv6Address"])

    def sandbox(self, reference: str) -> str:
        """The path of a container's network namespace."""
        return str(self.run_directory / "netns" / self.container(reference)["Id"][:12])

    def flush_for_good(self) -> None:
        """Take all rules away, and the daemon, which would put them back: the control of what they block. Containers go on."""
        self.stop()
        self.run("nft", "flush", "ruleset")

    def inside(self, reference: str, *argv: str, check: bool = True, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        """Run a command of the machine in a container's network namespace."""
        return command("nsenter", f"--net={self.sandbox(reference)}", *argv, check=check, timeout=timeout)

    def flood(self, target: str, *, sandbox: str | None = None, interval: float = 0.01) -> Flood:
        """Ping `target` until the end of the `with` block, from a container's namespace or (without `sandbox`) from the host's."""
        return Flood(target, self.sandbox(sandbox) if sandbox else self.namespace.path, interval)

    def lookups(self, name: str, sandbox: str) -> Lookups:
        """Ask 127.0.0.11 for `name` from a container's namespace until the end of the `with` block."""
        return Lookups(name, self.sandbox(sandbox))

    def state(self, *, sysctls: bool = True) -> dict[str, Any]:
        """The kernel's network state of this host and its sandboxes, and the mounts below its directories."""
        paths = sorted((self.run_directory / "netns").glob("*"))
        return {
            "host": namespace_state(self.namespace.path, sysctls=sysctls),
            "sandboxes": {path.name: namespace_state(str(path), sysctls=sysctls) for path in paths},
            "mounts": sorted(demo_hosts.mounts_below(self.directory)),
        }


def without_resolver_ports(text: str) -> str:
    """Of rules, as nft says them or in JSON: without the ports where resolvers listen, which are chosen at random."""
    for port in set(re.findall(r"(?:\. 53 : |, 53\]\}, )(\d+)\b", text)):
        text = re.sub(rf"\b{port}\b", "0", text)
        text = re.sub(rf'(\bset |"value": ){int(port) - 53}\b', r"\g<1>0", text)
    return text


LOOKS = (
    "ip -j -d link",
    "bridge -j -d link",
    "ip -j address",
    "ip -4 -j route",
    "ip -6 -j route",
    "nft -j list ruleset",
    f"cd /proc/sys/net && (grep -s '' {SYSCTLS} || true)",
)
"""What tells the state of a namespace. The last is sysctl(8) but for its walk through all there are, which takes 0.1 s."""


def namespace_state(path: str = "", *, sysctls: bool = True) -> dict[str, Any]:
    """What ip, bridge, nft and (optionally) /proc/sys say in the namespace at `path` (`""`: this process's)."""
    enter = ["nsenter", f"--net={path}"] if path else []
    deadline = time.monotonic() + 10
    while True:
        *told, settings = shown(enter, LOOKS if sysctls else (*LOOKS[:-1], "true"))
        links, bridge, addresses, routes, routes6, nft = (json.loads(text.strip() or "[]") for text in told)
        # A removed bridge is out of use at once, and deleted a little later.
        if not any(link["group"] == str(RETIRED_GROUP) for link in links) or time.monotonic() > deadline:
            break
    ports = (_chosen(port, ("ifname", "master", "hairpin", "isolated", "learning", "flood")) for port in bridge)
    return {
        "links": sorted((_link(link) for link in links), key=lambda link: str(link["name"])),
        "bridge": sorted(ports, key=str),
        "addresses": _addresses(addresses),
        "routes": sorted(_routes(routes + routes6), key=str),
        "nft": _without_noise(nft),
        "sysctls": _sysctls(settings),
    }


def shown(enter: list[str], lines: Sequence[str]) -> list[str]:
    """What each of these shell commands prints, of one shell. RuntimeError if one fails."""
    between = "\x1e"
    return command(*enter, "sh", "-ec", f"\nprintf '{between}'\n".join(lines)).stdout.split(between)


def _sysctls(told: str) -> list[str]:
    """As sysctl(8) tells them: `net.ipv4.ip_forward = 1`."""
    pairs = (line.split(":", 1) for line in told.splitlines())
    return sorted(f"net.{name.replace('.', '?').replace('/', '.').replace('?', '/')} = {value}" for name, value in pairs)


ROUTE = ("dst", "gateway", "dev", "protocol", "scope", "prefsrc", "metric")


def _chosen(record: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: record[key] for key in keys if key in record}


def _routes(routes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [_chosen(route, ROUTE) for route in routes if not route["dst"].startswith("fe80")]


def _link(link: dict[str, Any]) -> dict[str, Any]:
    info = link.get("linkinfo", {})
    chosen = _chosen(link, ("mtu", "master", "address", "group", "ifalias", "link_type"))
    slave = _chosen(info.get("info_slave_data", {}), ("hairpin", "isolated", "learning", "flood", "neigh_suppress"))
    up = "UP" in link["flags"]
    return {"name": link["ifname"], "kind": info.get("info_kind", ""), "up": up, **chosen, "port": slave}


def _addresses(links: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Of global scope, and IPv4's loopback: link-local IPv6 comes and goes by itself."""
    found = [(link["ifname"], address) for link in links for address in link["addr_info"]]
    return sorted((name, f"{one['local']}/{one['prefixlen']}") for name, one in found if one["scope"] != "link")


def _without_noise(nft: Any) -> Any:
    """A ruleset without handles, counters and versions; a set's elements in one order."""
    if isinstance(nft, dict):
        cleaned = {
            key: _without_noise(value) for key, value in nft.items() if key not in ("handle", "metainfo", "packets", "bytes", "expires")
        }
        if isinstance(cleaned.get("elem"), list):
            cleaned["elem"].sort(key=str)
        return cleaned
    if isinstance(nft, list):
        return [_without_noise(item) for item in nft if not (isinstance(item, dict) and "metainfo" in item)]
    return nft


def machine_state() -> dict[str, Any]:
    """The machine's own network, which no test may touch."""
    return namespace_state()


@contextlib.contextmanager
def untouched_machine() -> Iterator[None]:
    """Fails when the machine's own network is not the same afterwards."""
    before = machine_state()
    yield
    after = machine_state()
    changed = {key: (before[key], after[key]) for key in before if before[key] != after[key]}
    assert not changed, f"the machine's own network was changed: {changed}"
