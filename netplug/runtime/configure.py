"""From what `create` was asked to the config that is kept: the image's defaults filled in, and everything checked that can be."""

from __future__ import annotations

import os
import re

import msgspec

from netplug.errors import InvalidArgument
from netplug.model import DnsConfig
from netplug.runtime import bundle, capabilities, hosts, links, signals
from netplug.runtime.model import ContainerConfig, Image, Mount


def merged(config: ContainerConfig, image: Image) -> ContainerConfig:
    """The config with the image's command, environment and the like where it has none of its own.

    An entrypoint replaces the image's command too; the entrypoint `("",)` means none.
    """
    command = config.command or (() if config.entrypoint else image.command)
    entrypoint = () if config.entrypoint == ("",) else config.entrypoint or image.entrypoint
    return msgspec.structs.replace(
        config,
        command=command,
        entrypoint=entrypoint,
        environment=tuple(bundle.environment(image.environment, config.environment)),
        working_directory=config.working_directory or image.working_directory,
        user=config.user or image.user,
        exposed=tuple(dict.fromkeys((*image.exposed, *config.exposed))),
        mounts=tuple(_mount(mount) for mount in config.mounts),
    )


def check(config: ContainerConfig) -> None:
    """InvalidArgument, in Docker's words, for what can never work."""
    if not config.command and not config.entrypoint:
        raise InvalidArgument("No command specified")
    if config.working_directory and not config.working_directory.startswith("/"):
        raise InvalidArgument(f"the working directory '{config.working_directory}' is invalid, it needs to be an absolute path")
    if config.hostname and not re.fullmatch(r"[a-zA-Z0-9]([a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?", config.hostname):
        raise InvalidArgument(f"invalid hostname format: {config.hostname}")
    if any(not entry.partition("=")[0] for entry in config.environment):
        raise InvalidArgument("invalid environment variable: a name is missing")
    signals.parse(config.stop_signal)
    capabilities.check(config.capabilities_add, config.capabilities_drop)
    hosts.extra_lines(config.dns.extra_hosts, tuple)
    for link in config.links:
        links.parse(link)
    _check_mode(config)


def _check_mode(config: ContainerConfig) -> None:
    """What cannot be had together with the network of somebody else."""
    mode = config.network_mode
    shared = mode.startswith("container:")
    if shared and config.hostname:
        raise InvalidArgument("conflicting options: hostname and the network mode")
    if (shared or mode == "host") and config.links:
        raise InvalidArgument(f"conflicting options: {'container' if shared else 'host'} type networking can't be used with links")
    if shared and (config.dns.servers or config.dns.search or config.dns.options):
        raise InvalidArgument("conflicting options: dns and the network mode")
    if shared and config.dns != DnsConfig():
        raise InvalidArgument("conflicting options: custom host-to-IP mapping and the network mode")
    if shared and config.ports:
        raise InvalidArgument("conflicting options: port publishing and the container type network mode")
    if shared and config.exposed:
        raise InvalidArgument("conflicting options: port exposing and the container type network mode")


def _mount(mount: Mount) -> Mount:
    for path in (mount.source, mount.target):
        if not path.startswith("/"):
            raise InvalidArgument(f"invalid mount path: '{path}' mount path must be absolute")
    if os.path.normpath(mount.target) == "/":
        raise InvalidArgument("invalid volume specification: destination can't be '/'")
    return msgspec.structs.replace(mount, source=os.path.normpath(mount.source), target=os.path.normpath(mount.target))
