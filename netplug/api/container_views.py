"""Containers as Docker's JSON: a line of `ps`, and the whole of `inspect`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from netplug.api import ports
from netplug.api.services import Services
from netplug.api.views import NEVER, Json, ago, ordered, unix
from netplug.errors import NetplugError, NotFound
from netplug.model import Endpoint, Network, PortBinding
from netplug.runtime import links
from netplug.runtime.model import Attachment, Container, ExecState


def line(services: Services, container: Container) -> Json:
    """A line of `ps`."""
    config = container.config
    return {
        "Id": container.id,
        "Names": ["/" + container.name],
        "Image": config.image,
        "ImageID": container.image_id,
        "Command": _command(_argv(services, container)),
        "Created": unix(container.created),
        "Ports": ports.as_list(_published(services, container), config.exposed if container.status == "running" else ()),
        "Labels": ordered(config.labels),
        "State": container.status,
        "Status": status_text(container),
        "HostConfig": {"NetworkMode": config.network_mode},
        "NetworkSettings": {"Networks": networks(services, container)},
        "Mounts": _mounts(container),
    }


def inspect(services: Services, container: Container) -> Json:
    """`inspect`. Clients rely on State, Config, HostConfig and NetworkSettings being there always."""
    argv = _argv(services, container)
    folder = Path(services.settings.state_dir) / "containers" / container.id
    return {
        "Id": container.id,
        "Created": container.created,
        "Path": argv[0] if argv else "",
        "Args": list(argv[1:]),
        "State": _state(container),
        "Image": container.image_id,
        "ResolvConfPath": str(folder / "resolv.conf"),
        "HostnamePath": str(folder / "hostname"),
        "HostsPath": str(folder / "hosts"),
        "LogPath": str(folder / "log"),
        "Name": "/" + container.name,
        "RestartCount": 0,
        "Driver": "overlay",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": None,
        "HostConfig": _host_config(services, container),
        "GraphDriver": {"Name": "overlay", "Data": None},
        "Mounts": _mounts(container),
        "Config": _config(container),
        "NetworkSettings": _network_settings(services, container),
    }


def exec_state(state: ExecState) -> Json:
    """`GET /exec/{id}/json`."""
    config = state.config
    return {
        "ID": state.id,
        "ContainerID": state.container,
        "Running": state.running,
        "ExitCode": state.exit_code,
        "Pid": state.pid,
        "OpenStdin": config.stdin,
        "OpenStdout": config.stdout,
        "OpenStderr": config.stderr,
        "CanRemove": False,
        "DetachKeys": "",
        "ProcessConfig": {
            "tty": config.tty,
            "entrypoint": config.command[0] if config.command else "",
            "arguments": list(config.command[1:]),
            "privileged": config.privileged,
            "user": config.user,
        },
    }


def status_text(container: Container) -> str:
    """`Up 2 minutes`, `Exited (0) 3 seconds ago`, `Created`."""
    if container.status == "running":
        return f"Up {ago(container.started)}"
    if container.status == "exited":
        return f"Exited ({container.exit_code}) {ago(container.finished)} ago"
    return "Created"


def _command(argv: Sequence[str]) -> str:
    """Arguments with blanks in quotes, so that it can be seen where each ends."""
    return " ".join([*argv[:1], *(f"'{argument}'" if " " in argument else argument for argument in argv[1:])])


def networks(services: Services, container: Container) -> Json:
    """Each network by name: the endpoint if there is one, else what was asked for. Not the way out that comes by itself."""
    config = container.config
    if config.network_mode in ("host", "none"):
        return {config.network_mode: _settings(_find(services, config.network_mode), None, None)}
    wanted = [(_find(services, attachment.network), attachment) for attachment in config.attachments]
    asked = {record.id: attachment for record, attachment in wanted if record}
    result: Json = {}
    for endpoint in services.controller.endpoints(sandbox=container.id):
        record = _find(services, endpoint.network)
        if record and not endpoint.implied:
            result[record.name] = _settings(record, endpoint, asked.get(record.id))
    for record, attachment in wanted:
        name = record.name if record else attachment.network
        result.setdefault(name, _settings(record, None, attachment))
    return dict(sorted(result.items()))


def network_references(services: Services, container: Container) -> set[str]:
    """Names and ids of its networks, for `ps --filter network=`."""
    found = networks(services, container)
    return {*found, *(settings["NetworkID"] for settings in found.values())}


def host_ports(services: Services, container: Container) -> set[str]:
    """`8080/tcp` for each port of the host that leads to it, for `ps --filter publish=`."""
    return {f"{binding.host_port}/{binding.protocol}" for binding in ports.each(_published(services, container))}


def _settings(record: Network | None, endpoint: Endpoint | None, asked: Attachment | None) -> Json:
    address, _, prefix = (endpoint.address if endpoint else "").partition("/")
    address6, _, prefix6 = (endpoint.address6 if endpoint else "").partition("/")
    return {
        "IPAMConfig": _static(endpoint, asked) or None,
        "Links": list(asked.links) or None if asked else None,
        "Aliases": list(endpoint.aliases if endpoint else asked.aliases if asked else ()) or None,
        "MacAddress": endpoint.mac if endpoint else asked.mac if asked else "",
        "DriverOpts": (endpoint.options if endpoint else asked.options if asked else None) or None,
        "GwPriority": endpoint.gateway_priority if endpoint else asked.gateway_priority if asked else 0,
        "NetworkID": record.id if record else "",
        "EndpointID": endpoint.id if endpoint else "",
        "Gateway": endpoint.gateway if endpoint else "",
        "IPAddress": address,
        "IPPrefixLen": int(prefix or 0),
        "IPv6Gateway": endpoint.gateway6 if endpoint else "",
        "GlobalIPv6Address": address6,
        "GlobalIPv6PrefixLen": int(prefix6 or 0),
        "DNSNames": list(endpoint.names) if endpoint else None,
    }


def _static(endpoint: Endpoint | None, asked: Attachment | None) -> dict[str, str]:
    """The addresses that the user chose."""
    if asked:
        chosen = {"IPv4Address": asked.address, "IPv6Address": asked.address6}
    elif endpoint:
        static = {"IPv4Address": (endpoint.static_address, endpoint.address), "IPv6Address": (endpoint.static_address6, endpoint.address6)}
        chosen = {key: address.partition("/")[0] for key, (own, address) in static.items() if own}
    else:
        chosen = {}
    return {key: address for key, address in chosen.items() if address}


def _network_settings(services: Services, container: Container) -> Json:
    """The members beside `Networks` are the default bridge's, as they were before there were others."""
    sandbox = services.controller.sandbox(container.id)
    found = networks(services, container)
    default = found.get("bridge") or _settings(None, None, None)
    running = container.status == "running"
    return {
        "Bridge": "",
        "SandboxID": sandbox.id if sandbox else "",
        "SandboxKey": sandbox.namespace if sandbox else "",
        "Ports": ports.as_map(_published(services, container), container.config.exposed) if running else {},
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        **{key: default[key] for key in ("EndpointID", "Gateway", "IPAddress", "IPPrefixLen", "MacAddress")},
        **{key: default[key] for key in ("IPv6Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen")},
        "Networks": found,
    }


def _state(container: Container) -> Json:
    return {
        "Status": container.status,
        "Running": container.status == "running",
        "Paused": False,
        "Restarting": False,
        "OOMKilled": False,
        "Dead": False,
        "Pid": container.pid,
        "ExitCode": container.exit_code,
        "Error": container.error,
        "StartedAt": container.started or NEVER,
        "FinishedAt": container.finished or NEVER,
    }


def _config(container: Container) -> Json:
    config = container.config
    return {
        "Hostname": config.hostname or container.id[:12],
        "Domainname": config.domainname,
        "User": config.user,
        "AttachStdin": config.attach_stdin,
        "AttachStdout": True,
        "AttachStderr": True,
        "ExposedPorts": {port: {} for port in config.exposed},
        "Tty": config.tty,
        "OpenStdin": config.stdin,
        "StdinOnce": config.stdin_once,
        "Env": list(config.environment),
        "Cmd": list(config.command) or None,
        "Image": config.image,
        "Volumes": None,
        "WorkingDir": config.working_directory,
        "Entrypoint": list(config.entrypoint) or None,
        "OnBuild": None,
        "Labels": ordered(config.labels),
        "StopSignal": config.stop_signal,
        "StopTimeout": config.stop_timeout,
    }


def _host_config(services: Services, container: Container) -> Json:
    config = container.config
    return {
        "Binds": [f"{mount.source}:{mount.target}{':ro' if mount.read_only else ''}" for mount in config.mounts] or None,
        "ContainerIDFile": "",
        "LogConfig": {"Type": "json-file", "Config": {}},
        "NetworkMode": config.network_mode,
        "PortBindings": ports.as_asked(config.ports),
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "AutoRemove": config.auto_remove,
        "CapAdd": list(config.capabilities_add) or None,
        "CapDrop": list(config.capabilities_drop) or None,
        "Dns": list(config.dns.servers),
        "DnsOptions": list(config.dns.options),
        "DnsSearch": list(config.dns.search),
        "ExtraHosts": list(config.dns.extra_hosts) or None,
        "Links": [_link(services, container, link) for link in config.links] or None,
        "Privileged": config.privileged,
        "PublishAllPorts": False,
        "Sysctls": config.sysctls or None,
    }


def _link(services: Services, container: Container, link: str) -> str:
    """`/db:/web/database`, as Docker has it: the other one by its name, if it is still there, and the alias below our own."""
    reference, alias = links.parse(link)
    with suppress(NotFound):
        reference = services.containers.get(reference).name
    return f"/{reference}:/{container.name}/{alias}"


def _mounts(container: Container) -> list[Json]:
    return [
        {
            "Type": "bind",
            "Source": mount.source,
            "Destination": mount.target,
            "Mode": "ro" if mount.read_only else "",
            "RW": not mount.read_only,
            "Propagation": "rprivate",
        }
        for mount in container.config.mounts
    ]


def _published(services: Services, container: Container) -> Sequence[PortBinding]:
    """With the host ports that were chosen; none before the container runs, nor while it is on no network that leads out."""
    if container.status != "running":
        return ()
    return [port for endpoint in services.controller.endpoints(sandbox=container.id) for port in endpoint.ports]


def _argv(services: Services, container: Container) -> tuple[str, ...]:
    """What is run: the container's own entrypoint takes the image's command away too."""
    config = container.config
    if config.entrypoint:
        return config.entrypoint + config.command
    try:
        image = services.images.get(container.image_id or config.image)
    except NotFound:
        return config.command
    return image.entrypoint + (config.command or image.command)


def _find(services: Services, reference: str) -> Network | None:
    """The network, unless it has gone: a container that does not run may name one that was removed."""
    try:
        return services.controller.network(reference)
    except NetplugError:
        return None
