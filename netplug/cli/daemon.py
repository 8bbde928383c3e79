"""`netplug daemon`: flags and the TOML file become settings by name; the daemon itself is imported only here, and only when it runs."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, TypeVar

import click

from netplug.cli.command import BOOL, INT, Command, Failure

F = TypeVar("F", bound=Callable[..., Any])

_AUTHORITIES = "SSL_CERT_FILE"
"""OpenSSL's environment variable."""

# Name, type, whether it may be given several times, help. The names are those of `netplug.settings.Settings`.
_TEXT: tuple[tuple[str, bool, str], ...] = (
    ("socket", False, "Socket to listen on (/run/netplug/netplug.sock)"),
    ("state-dir", False, "Where what must survive a reboot is kept (/var/lib/netplug)"),
    ("run-dir", False, "Where what ends with a reboot is kept (/run/netplug)"),
    ("firewall-backend", False, "nftables, iptables, or none (nftables)"),
    ("bridge-accept-fwmark", False, "Let packets with this MARK[/MASK] into every network"),
    ("default-network-opt", True, "Option of new networks that say nothing else, DRIVER=KEY=VALUE"),
    ("default-address-pool", True, "Pool for networks without a subnet, base=CIDR,size=N"),
    ("bip", False, "Address and prefix of the default bridge, as in 192.168.5.1/24"),
    ("fixed-cidr", False, "The part of the default bridge's subnet that containers get"),
    ("bip6", False, "IPv6 address and prefix of the default bridge, as in fd00:5::1/64"),
    ("fixed-cidr-v6", False, "The IPv6 addresses that containers on the default bridge get; without --bip6, its IPv6 subnet"),
    ("bridge", False, "Name of the default bridge, or none (netplug0)"),
    ("dns", True, "DNS server of containers that say nothing else"),
    ("dns-search", True, "Search domain of containers that say nothing else"),
    ("dns-opt", True, "DNS option of containers that say nothing else"),
    ("ip", False, "Host address of ports published without one"),
    ("store", False, "The cluster's store, etcd://HOST:PORT,…[/PREFIX]; without it this host is alone"),
    ("store-ca", False, "Who signed the certificates of the store's members (PEM)"),
    ("store-cert", False, "This node's certificate for the store (PEM)"),
    ("store-key", False, "Its key (PEM)"),
    ("store-user", False, "User of the store, NAME:PASSWORD, or NAME and NETPLUG_STORE_PASSWORD"),
    ("node", False, "This node's name in the cluster (the host's)"),
    ("advertise", False, "Address by which other nodes reach this one, or the interface that has it"),
    ("cluster-store", False, "The same as --store, as Docker called it"),
    ("cluster-advertise", False, "The same as --advertise, as Docker called it"),
    ("docker-plugin", False, "Socket for the Docker Engine's plugin, as in /run/docker/plugins/netplug.sock (none)"),
    ("docker-host", False, "That engine's API, asked for names (unix:///run/docker.sock)"),
    ("runtime", False, "OCI runtime (runc)"),
    ("log-level", False, "debug, info, warning or error (info)"),
)
_BOOLEAN = (
    ("ipv6", "Give the default bridge IPv6 too (false)"),
    ("iptables", "Keep firewall rules; false: that is left to the administrator (true)"),
    ("allow-direct-routing", "Let others reach published ports by the containers' own addresses (false)"),
    ("icc", "Let containers on the default bridge talk to one another (true)"),
    ("ip-forward", "Switch forwarding on in the kernel (true)"),
    ("ip-masq", "Masquerade what leaves the default bridge (true)"),
)


def _settings_flags(function: F) -> F:
    for name, several, text in reversed(_TEXT):
        default: Any = () if several else None
        function = click.option(f"--{name}", multiple=several, default=default, help=text)(function)
    for name, text in reversed(_BOOLEAN):
        # As with Docker's flags, `--icc` alone is true and `--icc=false` is false.
        function = click.option(f"--{name}", type=BOOL, default=None, is_flag=False, flag_value="true", help=text)(function)
    return function


@click.command("daemon", cls=Command)
@_settings_flags
@click.option("--mtu", type=INT, default=None, help="MTU of the default bridge")
@click.option("--vxlan-port", type=INT, default=None, help="UDP port of overlay networks, the same on all nodes (4789)")
@click.option("--heal/--no-heal", default=None, help="Put back what somebody else takes away (--heal)")
@click.option("--config", metavar="FILE", default=None, help="TOML file with the same names; flags win")
@click.option("--dry-run", is_flag=True, help="Only print the commands that a first start runs")
def daemon_command(config: str | None, dry_run: bool, **flags: Any) -> int:
    """Run the daemon in the foreground"""
    values = {**(from_file(config) if config else {}), **{name: value for name, value in flags.items() if value not in (None, ())}}
    if not dry_run:
        from netplug import start

        # Nearly nothing that a start makes is garbage; the daemon has it collected again when it is ready.
        gc.disable()
        with start.reception(values.get("docker_plugin")) as early:
            code: int = _rooms().run(values, early)
            return code
    from netplug.errors import NetplugError

    try:
        lines = _rooms().explain(values)
    except NetplugError as error:
        raise Failure(f"netplug daemon: {error}") from None
    click.echo("\n".join(lines))
    return 0


def _rooms() -> ModuleType:
    """All rooms of the daemon: half a second that no other command pays."""
    with without_authorities():
        from netplug import daemon
    return daemon


@contextlib.contextmanager
def without_authorities() -> Iterator[None]:
    """For the first import of aiohttp, which makes two TLS contexts that read every authority the machine trusts, 50 ms each.

    Nobody asks for them: the API's clients come by a unix socket, and a plugin by TLS names its own.
    """
    known = os.environ.get(_AUTHORITIES)
    os.environ[_AUTHORITIES] = os.devnull
    try:
        yield
    finally:
        del os.environ[_AUTHORITIES]
        if known is not None:
            os.environ[_AUTHORITIES] = known


def from_file(path: str) -> dict[str, Any]:
    """Settings by name; `-` and `_` in a name are the same. `config` is the file itself, for who complains of what it says."""
    import tomllib

    try:
        with open(path, "rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise Failure(f"netplug daemon: cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Failure(f"netplug daemon: {path} is not TOML: {error}") from None
    found: dict[str, Any] = {}
    for name, value in values.items():
        ours = name.replace("-", "_")
        if ours in found:
            raise Failure(f"netplug daemon: {path} says {ours} twice, with - and with _: leave one out")
        if ours == "config":
            raise Failure(f"netplug daemon: {path} cannot name another file: leave config out")
        found[ours] = value
    return {**found, "config": path}
