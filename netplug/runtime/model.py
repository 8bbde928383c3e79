"""What the runtime keeps: containers, images, exec sessions. Frozen data, stored as JSON beside the networks' records."""

from __future__ import annotations

from typing import Literal

import msgspec

from netplug.model import DnsConfig, PortBinding, Record

HOST_IMAGE = "host"
"""The image that is the host's own file system, read-only."""

Status = Literal["created", "running", "exited"]


class Attachment(Record, frozen=True, kw_only=True):
    """A network that a container is to be on, as the user asked: by `create`, or by `connect` while it does not run."""

    network: str
    """Name or id, as given."""
    address: str = ""
    address6: str = ""
    mac: str = ""
    aliases: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    gateway_priority: int = 0
    options: dict[str, str] = {}


class Mount(Record, frozen=True, kw_only=True):
    """`-v source:target[:ro]`."""

    source: str
    target: str
    read_only: bool = False


class ContainerConfig(Record, frozen=True, kw_only=True):
    """What `create` was asked for.

    `network_mode`: `default`, `none`, `host`, `container:<id>`, or the name of the first network; `attachments` holds all networks
    (empty for none, host and container).
    """

    image: str
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    working_directory: str = ""
    user: str = ""
    hostname: str = ""
    domainname: str = ""
    labels: dict[str, str] = {}
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False
    attach_stdin: bool = False
    auto_remove: bool = False
    privileged: bool = False
    capabilities_add: tuple[str, ...] = ()
    capabilities_drop: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    dns: DnsConfig = DnsConfig()
    links: tuple[str, ...] = ()
    """`--link container:alias` on the default bridge."""
    ports: tuple[PortBinding, ...] = ()
    exposed: tuple[str, ...] = ()
    """`80/tcp`."""
    network_mode: str = "default"
    attachments: tuple[Attachment, ...] = ()
    stop_signal: str = "SIGTERM"
    stop_timeout: int = 10
    sysctls: dict[str, str] = {}


class Container(Record, frozen=True, kw_only=True):
    """A container and where it is in its life. `pid` is 0 unless it runs; its sandbox has the container's id."""

    id: str
    name: str
    created: str
    config: ContainerConfig
    image_id: str = ""
    status: Status = "created"
    pid: int = 0
    conmon_pid: int = 0
    conmon_started: int = 0
    """Field 22 of /proc/PID/stat, against reuse of the pid."""
    exit_code: int = 0
    error: str = ""
    started: str = ""
    finished: str = ""


class Image(Record, frozen=True, kw_only=True):
    """A root file system: an unpacked tarball below the state directory, or `host`."""

    id: str
    """`sha256:` and 64 hex digits of the tarball."""
    tags: tuple[str, ...] = ()
    created: str = ""
    size: int = 0
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    working_directory: str = ""
    user: str = ""
    exposed: tuple[str, ...] = ()


class ExecConfig(Record, frozen=True, kw_only=True):
    """A further process for a running container."""

    command: tuple[str, ...]
    environment: tuple[str, ...] = ()
    working_directory: str = ""
    user: str = ""
    tty: bool = False
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    detach: bool = False
    privileged: bool = False


class ExecState(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an exec session. It lives as long as its container and the daemon, and is never stored."""

    id: str
    container: str
    config: ExecConfig
    running: bool = False
    exit_code: int | None = None
    """None until it has ended."""
    pid: int = 0


class ExitStatus(msgspec.Struct, frozen=True):
    code: int
    error: str = ""
