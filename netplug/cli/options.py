"""Values of flags, each from text: `key=value`, addresses, hosts, links, networks, files of variables. ValueError says what is wrong.

The sentences are Docker's. What a daemon has to judge (does the network exist, is the address free) is left to it.
"""

from __future__ import annotations

import csv
import ipaddress
import os
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

_MAC = re.compile(r"[0-9a-fA-F]{2}([:-])[0-9a-fA-F]{2}(?:\1[0-9a-fA-F]{2}){4}")
_DOMAIN = re.compile(r"(?:\.|[a-zA-Z0-9_](?:[a-zA-Z0-9_-]*[a-zA-Z0-9_])?(?:\.[a-zA-Z0-9_](?:[a-zA-Z0-9_-]*[a-zA-Z0-9_])?)*\.?)")
_SYSCTLS = ("kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni")
_SYSCTL_PREFIXES = ("net.", "fs.mqueue.", "kernel.shm_rmid_forced")
_RESERVED_NETWORKS = ("bridge", "default", "host", "none")


class Attachment(NamedTuple):
    """One `--network`, in its plain form or its extended one; `endpoint` is the API's EndpointSettings so far."""

    name: str
    endpoint: dict[str, Any]


def is_address(text: str) -> bool:
    """Whether it is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def pair(text: str) -> tuple[str, str]:
    """`key=value`, or `key` for an empty value."""
    key, _, value = text.partition("=")
    return key, value


def label(text: str) -> tuple[str, str]:
    key, value = pair(text)
    if not key:
        raise ValueError(f"invalid label '{text}': empty name")
    return key, value


def filter_pair(text: str) -> tuple[str, str]:
    """`--filter name=value`."""
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError("bad format of filter (expected name=value)")
    return key.strip().lower(), value.strip()


def filters(pairs: Iterable[tuple[str, str]]) -> dict[str, dict[str, bool]]:
    """The API's form of several `--filter`."""
    found: dict[str, dict[str, bool]] = {}
    for key, value in pairs:
        found.setdefault(key, {})[value] = True
    return found


def environment(text: str) -> str:
    """`-e KEY=VALUE`; `-e KEY` takes the value from our own environment."""
    if text.startswith("=") or not text:
        raise ValueError(f"invalid environment variable: {text}")
    if "=" not in text and text in os.environ:
        return f"{text}={os.environ[text]}"
    return text


def environment_file(path: str) -> list[str]:
    """`--env-file`: a variable a line, `#` comments; a bare name takes our own value, and is left out if we have none."""
    with open(path, encoding="utf-8") as file:
        lines = [line.rstrip("\r\n").lstrip() for line in file]
    found: list[str] = []
    for line in lines:
        if not line or line.startswith("#"):
            continue
        name, equals, _ = line.partition("=")
        if not name:
            raise ValueError(f"invalid env file ({path}): no variable name on line '{line}'")
        if re.search(r"\s", name):
            raise ValueError(f"invalid env file ({path}): variable '{name}' contains whitespaces")
        if equals or name in os.environ:
            found.append(line if equals else f"{name}={os.environ[name]}")
    return found


def unread(error: OSError | ValueError) -> str:
    """What is wrong with a file that a flag names, or with a value."""
    return f"open {error.filename}: {(error.strerror or '').lower()}" if isinstance(error, OSError) else str(error)


def dns_server(text: str) -> str:
    address = text.strip()
    if not is_address(address):
        raise ValueError(f"IP address is not correctly formatted: {text}")
    return address


def dns_search(text: str) -> str:
    """A domain, or `.` for none."""
    domain = text.strip()
    if len(domain) > 255 or not _DOMAIN.fullmatch(domain) or not re.search(r"[a-zA-Z.]", domain):
        raise ValueError(f"{text} is not a valid domain")
    return domain


def extra_host(text: str) -> str:
    """`--add-host name:address` (or `name=address`), as `name:address`."""
    separator = "=" if "=" in text else ":"
    name, found, address = text.partition(separator)
    if not found or not name:
        raise ValueError(f'bad format for add-host: "{text}"')
    bare = address[1:-1] if address.startswith("[") and address.endswith("]") else address
    if bare != "host-gateway" and not is_address(bare):
        raise ValueError(f'invalid IP address in add-host: "{address}"')
    return f"{name}:{bare}"


def link(text: str) -> str:
    """`--link container[:alias]`."""
    name, _, alias = text.partition(":")
    if not text:
        raise ValueError("empty string specified for links")
    if not name or ":" in alias:
        raise ValueError(f"bad format for links: {text}")
    return text


def links(given: Iterable[str]) -> list[str]:
    """`container:alias`, the alias added where it was left out."""
    return [text if ":" in text else f"{text}:{text}" for text in given]


def sysctl(text: str) -> tuple[str, str]:
    """`--sysctl key=value`, of what belongs to a namespace of the container's."""
    key, equals, value = text.partition("=")
    if not equals or not (key in _SYSCTLS or key.startswith(_SYSCTL_PREFIXES)):
        raise ValueError(f"sysctl '{text}' is not allowed")
    return key, value


def mac_address(text: str) -> str:
    if not _MAC.fullmatch(text.strip()):
        raise ValueError(f"{text} is not a valid mac address")
    return text.strip()


def stream(text: str) -> str:
    """`stdin`, `stdout` or `stderr`, however it is written."""
    name = text.lower()
    if name not in ("stdin", "stdout", "stderr"):
        raise ValueError("valid streams are STDIN, STDOUT and STDERR")
    return name


def volume(text: str) -> str:
    """`-v source:target[:ro]`; a source that begins with `.` is relative to where we are."""
    source, colon, rest = text.partition(":")
    if colon and (source in (".", "..") or source.startswith(("./", "../"))):
        source = os.path.abspath(source)
    return f"{source}{colon}{rest}"


def attachment(text: str) -> Attachment:
    """`--network NAME` or `--network name=NAME,alias=…,ip=…,ip6=…,mac-address=…,driver-opt=K=V,gw-priority=N,link-local-ip=…`."""
    if "=" not in text:
        return Attachment(text, {})
    name, endpoint = "", _Endpoint()
    for part in _fields(text):
        key, equals, value = part.strip().partition("=")
        key, value = key.lower(), value.strip()
        if not equals:
            raise ValueError("invalid field " + part)
        if key == "name":
            name = value
        else:
            endpoint.set(key, value)
    if not name:
        raise ValueError("network name/id is not specified")
    return Attachment(name, endpoint.settings)


def _fields(text: str) -> list[str]:
    """Comma separated, with quotes where a value has commas of its own."""
    try:
        return next(csv.reader([text]), [])
    except csv.Error as error:
        raise ValueError(f"invalid network: {error}") from None


class _Endpoint:
    """EndpointSettings as the fields of an extended `--network` fill them."""

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}

    def set(self, key: str, value: str) -> None:
        match key:
            case "alias":
                self.settings.setdefault("Aliases", []).append(value)
            case "ip" | "ip6" | "link-local-ip":
                self._address(key, value)
            case "mac-address":
                self.settings["MacAddress"] = mac_address(value)
            case "driver-opt":
                self.settings.setdefault("DriverOpts", {}).update([driver_option(value)])
            case "gw-priority":
                if not re.fullmatch(r"[-+]?[0-9]{1,9}", value):
                    raise ValueError(f"invalid gw-priority ({value}): invalid syntax")
                self.settings["GwPriority"] = int(value)
            case _:
                raise ValueError(f"invalid field key {key}")

    def _address(self, key: str, value: str) -> None:
        ipam = self.settings.setdefault("IPAMConfig", {})
        if key == "link-local-ip":
            ipam.setdefault("LinkLocalIPs", []).append(value)
        else:
            ipam["IPv4Address" if key == "ip" else "IPv6Address"] = value


def driver_option(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError("invalid key value pair format in driver options")
    return key.strip().lower(), value.strip()


def is_user_defined(network: str) -> bool:
    return network not in _RESERVED_NETWORKS and not network.startswith("container:")
