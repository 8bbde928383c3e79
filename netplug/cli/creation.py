"""The body of `POST /containers/create` out of the flags of `run` and `create`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from netplug.cli import completion, options, ports
from netplug.cli.command import INT, Failure, Value
from netplug.cli.options import Attachment

F = TypeVar("F", bound=Callable[..., Any])

_FLAGS: tuple[Callable[[Any], Any], ...] = (
    click.option("--name", default="", help="Assign a name to the container"),
    click.option(
        "--network",
        "--net",
        "networks",
        multiple=True,
        type=Value(options.attachment, "network"),
        shell_complete=completion.networks,
        help="Connect to a network; more than once, and with name=NET,alias=A,ip=ADDR,mac-address=MAC,gw-priority=N,driver-opt=K=V",
    ),
    click.option("--ip", "address", default="", help="IPv4 address (e.g. 172.30.100.104)"),
    click.option("--ip6", "address6", default="", help="IPv6 address"),
    click.option("--mac-address", "mac", default="", help="MAC address (e.g. 02:42:ac:11:00:02)"),
    click.option("--network-alias", "--net-alias", "aliases", multiple=True, help="Add a name for the container on its network"),
    click.option("--link", "links", multiple=True, type=Value(options.link, "list"), help="Add a link to another container"),
    click.option("--link-local-ip", "link_local", multiple=True, help="Link-local addresses"),
    click.option("--dns", multiple=True, type=Value(options.dns_server, "list"), help="Set custom DNS servers"),
    click.option("--dns-search", multiple=True, type=Value(options.dns_search, "list"), help="Set custom DNS search domains"),
    click.option("--dns-option", "--dns-opt", "dns_options", multiple=True, help="Set DNS options"),
    click.option("-h", "--hostname", default="", help="Container host name"),
    click.option("--domainname", default="", help="Container NIS domain name"),
    click.option("--add-host", "hosts", multiple=True, type=Value(options.extra_host, "list"), help="Add a host, NAME:ADDRESS"),
    click.option("-p", "--publish", "publish", multiple=True, help="Publish a container's port, [IP:][HOSTPORT:]PORT[/PROTOCOL]"),
    click.option("-P", "--publish-all", is_flag=True, help="Publish all exposed ports to random ports"),
    click.option("--expose", multiple=True, help="Expose a port or a range of ports"),
    click.option("-i", "--interactive", is_flag=True, help="Keep STDIN open even if not attached"),
    click.option("-t", "--tty", "terminal", is_flag=True, help="Allocate a pseudo-TTY"),
    click.option("-e", "--env", "variables", multiple=True, type=Value(options.environment, "list"), help="Set environment variables"),
    click.option("--env-file", "variable_files", multiple=True, help="Read in a file of environment variables"),
    click.option(
        "-v", "--volume", "volumes", multiple=True, type=Value(options.volume, "list"), help="Bind mount a path, SOURCE:TARGET[:ro]"
    ),
    click.option("-w", "--workdir", default="", help="Working directory inside the container"),
    click.option("-u", "--user", default="", help="Username or UID (format: <name|uid>[:<group|gid>])"),
    click.option("--entrypoint", default=None, help="Overwrite the default ENTRYPOINT of the image"),
    click.option("-l", "--label", "labels", multiple=True, type=Value(options.label, "list"), help="Set metadata on the container"),
    click.option("--privileged", is_flag=True, help="Give extended privileges to this container"),
    click.option("--cap-add", multiple=True, help="Add Linux capabilities"),
    click.option("--cap-drop", multiple=True, help="Drop Linux capabilities"),
    click.option("--sysctl", "sysctls", multiple=True, type=Value(options.sysctl, "map"), help="Sysctl options"),
    click.option("--stop-signal", default="", help="Signal to stop the container"),
    click.option("--stop-timeout", type=INT, default=None, help="Timeout (in seconds) to stop a container"),
    click.option("--rm", "remove", is_flag=True, help="Remove the container when it exits"),
    click.option("-a", "--attach", "attach", multiple=True, type=Value(options.stream, "list"), help="Attach to STDIN, STDOUT or STDERR"),
)


def creation_flags(function: F) -> F:
    """The flags that say what a container is to be."""
    for flag in reversed(_FLAGS):
        function = flag(function)
    return function


def body(image: str, command: Sequence[str], given: Mapping[str, Any], detach: bool) -> dict[str, Any]:
    """What to send. Failure says which flags do not fit together, before anything is asked of the daemon."""
    try:
        published = [spec for text in given["publish"] for spec in ports.published(text)]
        exposed = [port for text in given["expose"] for port in ports.exposed(text)]
        variables = [line for path in given["variable_files"] for line in options.environment_file(path)]
        attachments = networks(given)
    except (OSError, ValueError) as error:
        raise Failure(options.unread(error)) from None
    streams = attached(given, detach)
    mode = attachments[0].name if given["networks"] else "default"
    config = {
        "Hostname": given["hostname"],
        "Domainname": given["domainname"],
        "User": given["user"],
        "AttachStdin": "stdin" in streams,
        "AttachStdout": "stdout" in streams,
        "AttachStderr": "stderr" in streams,
        "ExposedPorts": {port: {} for port in (*exposed, *(spec.port for spec in published))},
        "Tty": given["terminal"],
        "OpenStdin": given["interactive"],
        "StdinOnce": given["interactive"] and "stdin" in streams,
        "Env": [*variables, *given["variables"]],
        "Cmd": list(command) or None,
        "Image": image,
        "WorkingDir": given["workdir"],
        "Entrypoint": None if given["entrypoint"] is None else [given["entrypoint"]],
        "Labels": dict(given["labels"]),
    }
    if given["stop_signal"]:
        config["StopSignal"] = given["stop_signal"]
    if given["stop_timeout"] is not None:
        config["StopTimeout"] = given["stop_timeout"]
    endpoints = {attachment.name: attachment.endpoint for attachment in attachments}
    host = _host_config(given, mode, ports.bindings(published))
    return {**config, "HostConfig": host, "NetworkingConfig": {"EndpointsConfig": endpoints}}


def _host_config(given: Mapping[str, Any], mode: str, bindings: dict[str, Any]) -> dict[str, Any]:
    return {
        "NetworkMode": mode,
        "PortBindings": bindings,
        "PublishAllPorts": given["publish_all"],
        "Binds": list(given["volumes"]),
        "Dns": list(given["dns"]),
        "DnsOptions": list(given["dns_options"]),
        "DnsSearch": list(given["dns_search"]),
        "ExtraHosts": list(given["hosts"]),
        "Links": list(given["links"]),
        "CapAdd": list(given["cap_add"]),
        "CapDrop": list(given["cap_drop"]),
        "Privileged": given["privileged"],
        "AutoRemove": given["remove"],
        "Sysctls": dict(given["sysctls"]),
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
    }


def attached(given: Mapping[str, Any], detach: bool) -> set[str]:
    """Which of the container's streams are to be ours."""
    wanted = set(given["attach"])
    if detach:
        if wanted:
            raise Failure("conflicting options: cannot specify both --attach and --detach")
        return set()
    return wanted or {"stdout", "stderr"} | ({"stdin"} if given["interactive"] else set())


def check_terminal(stdin: bool, terminal: bool) -> None:
    """A container's terminal needs ours."""
    if stdin and terminal and not sys.stdin.isatty():
        raise Failure("the input device is not a TTY")


def networks(given: Mapping[str, Any]) -> list[Attachment]:
    """Every network with its settings; the flags beside `--network` belong to the first one."""
    wanted: Sequence[Attachment] = given["networks"] or (Attachment("default", {}),)
    names = [attachment.name for attachment in wanted]
    if not all(names):
        raise ValueError("no name set for network")
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f'network "{name}" is specified multiple times')
    if len(names) > 1 and not all(options.is_user_defined(name) for name in names):
        raise ValueError("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
    first = Attachment(names[0], _with_flags(wanted[0], given))
    if first.endpoint.get("Aliases") and not options.is_user_defined(names[0]):
        raise ValueError("network-scoped aliases are only supported for user-defined networks")
    return [first, *wanted[1:]]


def _with_flags(attachment: Attachment, given: Mapping[str, Any]) -> dict[str, Any]:
    """EndpointSettings of the first network: its own fields, and the flags of the container."""
    endpoint = {**attachment.endpoint, "IPAMConfig": dict(attachment.endpoint.get("IPAMConfig", {}))}
    mac = options.mac_address(given["mac"]) if given["mac"] else ""
    flags: tuple[tuple[str, dict[str, Any], str, Any, str], ...] = (
        ("--network-alias", endpoint, "Aliases", list(given["aliases"]), "alias"),
        ("--ip", endpoint["IPAMConfig"], "IPv4Address", given["address"], "IPv4 address"),
        ("--ip6", endpoint["IPAMConfig"], "IPv6Address", given["address6"], "IPv6 address"),
        ("--link-local-ip", endpoint["IPAMConfig"], "LinkLocalIPs", list(given["link_local"]), "link-local IP addresses"),
        ("--mac-address", endpoint, "MacAddress", mac, "MAC address"),
    )
    for flag, where, key, value, what in flags:
        if value and where.get(key):
            raise ValueError(f"conflicting options: cannot specify both {flag} and per-network {what}")
        if value:
            where[key] = value
    if given["links"] and options.is_user_defined(attachment.name):
        endpoint["Links"] = options.links(given["links"])
    return {key: value for key, value in endpoint.items() if value}
