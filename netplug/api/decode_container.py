"""From the body of POST /containers/create to a ContainerConfig, with the warnings that the user must see.

Refused is what makes no sense (Docker's sentences); warned of is what netplug cannot give: a client reads `Warnings` and prints them.
"""

from __future__ import annotations

import ipaddress
import posixpath
from collections.abc import Iterable
from typing import Any

from netplug.api import ports, shapes
from netplug.api.decode import attachment
from netplug.api.services import Services
from netplug.api.unsupported import create_warnings
from netplug.errors import InvalidArgument, NotFound
from netplug.model import DnsConfig, PortBinding
from netplug.runtime import links
from netplug.runtime.images import HOST_WARNING, is_host
from netplug.runtime.model import Attachment, ContainerConfig, Mount
from netplug.words import check_files, check_words

DEFAULT_NETWORK = "bridge"
DEFAULT_MODES = ("", "default", DEFAULT_NETWORK)


def container_config(body: shapes.ContainerCreate, raw: dict[str, Any], services: Services) -> tuple[ContainerConfig, list[str]]:
    """The config and the warnings. `raw` is the whole body, in which what is not supported is looked for."""
    host = body.host_config
    mode = _mode(host.network_mode, services)
    _check(body, mode)
    _find_linked(host.links if mode in DEFAULT_MODES else (), services)
    image = services.images.get(body.image)
    warnings = [HOST_WARNING] if is_host(image.id) else []
    warnings += create_warnings(raw)
    exposed = ports.exposed((*body.exposed_ports, *image.exposed))
    published = _published(host, exposed, mode, warnings)
    config = ContainerConfig(
        image=body.image,
        command=_words(body.cmd),
        entrypoint=_words(body.entrypoint),
        environment=body.env,
        working_directory=body.working_dir,
        user=body.user,
        hostname=body.hostname,
        domainname=body.domainname,
        labels=body.labels,
        tty=body.tty,
        stdin=body.open_stdin,
        stdin_once=body.stdin_once,
        attach_stdin=body.attach_stdin,
        auto_remove=host.auto_remove,
        privileged=host.privileged,
        capabilities_add=host.cap_add,
        capabilities_drop=host.cap_drop,
        mounts=_mounts(host),
        dns=_dns(host),
        links=host.links if mode in DEFAULT_MODES else (),
        ports=published,
        exposed=tuple(dict.fromkeys((*exposed, *ports.numbers(published)))),
        network_mode=mode or "default",
        attachments=_attachments(body, mode, services),
        stop_signal=body.stop_signal or "SIGTERM",
        stop_timeout=body.stop_timeout,
        sysctls=host.sysctls,
    )
    return config, warnings


def _mode(mode: str, services: Services) -> str:
    """`container:web` names the container by its id from here on, so that it may be renamed."""
    kind, separator, reference = mode.partition(":")
    if kind == "container" and separator:
        if not reference:
            raise InvalidArgument("Invalid network mode: invalid container format container:<name|id>")
        return f"container:{services.containers.get(reference).id}"
    return mode


def _check(body: shapes.ContainerCreate, mode: str) -> None:
    """What cannot go together: a container without a network namespace of its own has no names or ports of its own either."""
    if not body.image:
        raise InvalidArgument("no image specified: give the name of an image, or `host` for the host's own file system")
    host = body.host_config
    _check_links(host, mode)
    if mode.startswith("container:"):
        _refuse(bool(body.hostname), "hostname and the network mode")
        _refuse(bool(host.dns), "dns and the network mode")
        _refuse(bool(host.extra_hosts), "custom host-to-IP mapping and the network mode")
        _refuse(bool(host.port_bindings or host.publish_all_ports), "port publishing and the container type network mode")
        _refuse(bool(body.exposed_ports), "port exposing and the container type network mode")
    if mode.startswith("container:") or mode == "host":
        macs = [body.mac_address, *(one.mac_address for one in body.networking_config.endpoints_config.values())]
        _refuse(any(macs), "mac-address and the network mode")
    wanted = [one.ipam_config for one in body.networking_config.endpoints_config.values()]
    if mode in ("host", "none") and any(one.ipv4_address or one.ipv6_address for one in wanted):
        raise InvalidArgument("user specified IP address is supported on user defined networks only")
    check_files(host.dns, host.dns_search, host.dns_options, host.extra_hosts)
    check_words("domain name", body.domainname)
    check_words("link", *host.links)
    for entry in host.extra_hosts:
        _check_extra_host(entry)


def _check_links(host: shapes.HostConfig, mode: str) -> None:
    if not host.links:
        return
    if mode == "host":
        raise InvalidArgument("conflicting options: host type networking can't be used with links. This would result in undefined behavior")
    if mode.startswith("container:"):
        raise InvalidArgument(
            "conflicting options: container type network can't be used with links. This would result in undefined behavior"
        )


def _find_linked(wanted: Iterable[str], services: Services) -> None:
    """A link to nobody is refused before anything is made."""
    for name, _ in map(links.parse, wanted):
        try:
            services.containers.get(name)
        except NotFound as error:
            raise NotFound(f"could not get container for {name}: {error}") from None


def _refuse(clash: bool, what: str) -> None:
    if clash:
        raise InvalidArgument(f"conflicting options: {what}")


def _check_extra_host(entry: str) -> None:
    name, separator, address = entry.partition(":")
    if not (name and separator):
        raise InvalidArgument(f'bad format for add-host: "{entry}"')
    if address != "host-gateway" and not _is_address(address):
        raise InvalidArgument(f'invalid IP address in add-host: "{address}"')


def _published(host: shapes.HostConfig, exposed: tuple[str, ...], mode: str, warnings: list[str]) -> tuple[PortBinding, ...]:
    published = ports.bindings(host.port_bindings)
    if host.publish_all_ports:
        published += ports.publish_all(exposed, published)
    if published and mode == "host":
        warnings.append("Published ports are discarded when using host network mode")
        return ()
    return published


def _attachments(body: shapes.ContainerCreate, mode: str, services: Services) -> tuple[Attachment, ...]:
    """All networks of the container; the one that the network mode names comes first, whichever way each is written."""
    if mode in ("host", "none") or mode.startswith("container:"):
        return ()
    main = DEFAULT_NETWORK if mode in DEFAULT_MODES else mode
    wanted = {
        DEFAULT_NETWORK if name == "default" else name: settings for name, settings in body.networking_config.endpoints_config.items()
    }
    if main not in wanted and (not wanted or mode not in DEFAULT_MODES):
        main = _same_network(main, wanted, services)
        wanted.setdefault(main, shapes.EndpointSettings())
    names = sorted(wanted, key=lambda name: name != main)
    attachments = [attachment(name, wanted[name]) for name in names]
    return tuple(_with_mac(attachments, body.mac_address))


def _same_network(main: str, wanted: dict[str, shapes.EndpointSettings], services: Services) -> str:
    """The key among `wanted` that means the same network as `main` (one a name, the other an id); else `main`."""
    if not wanted:
        return main
    network = services.controller.network
    return next((key for key in wanted if network(key).id == network(main).id), main)


def _with_mac(attachments: list[Attachment], mac: str) -> list[Attachment]:
    """Clients before 1.44 give the MAC of the main network beside the networks."""
    if not mac or not attachments:
        return attachments
    first = attachments[0]
    if first.mac and first.mac.lower() != mac.lower():
        raise InvalidArgument(
            "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty"
        )
    fields = {name: getattr(first, name) for name in first.__struct_fields__}
    return [Attachment(**{**fields, "mac": mac}), *attachments[1:]]


def _words(value: shapes.OneOrMany) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def _dns(host: shapes.HostConfig) -> DnsConfig:
    for server in host.dns:
        if not _is_address(server):
            raise InvalidArgument(f"{server} is not an ip address")
    return DnsConfig(servers=host.dns, search=host.dns_search, options=host.dns_options, extra_hosts=host.extra_hosts)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _mounts(host: shapes.HostConfig) -> tuple[Mount, ...]:
    mounts = [*(_bind(text) for text in host.binds), *(_mount(mount) for mount in host.mounts)]
    for index, mount in enumerate(mounts):
        if any(mount.target == other.target for other in mounts[:index]):
            raise InvalidArgument(f"Duplicate mount point: {mount.target}")
    return tuple(mounts)


def _bind(text: str) -> Mount:
    """`/source:/target[:mode,…]`."""
    source, *rest = text.split(":")
    if len(rest) not in (1, 2) or not source or not rest[0]:
        raise InvalidArgument(f"invalid volume specification: '{text}'")
    modes = rest[1].split(",") if len(rest) == 2 else []
    for mode in modes:
        if mode not in ("ro", "rw", "z", "Z", "rprivate", "private"):
            raise InvalidArgument(f"invalid mode: {rest[1]}")
    return _checked(source, rest[0], "ro" in modes)


def _mount(mount: shapes.BindMount) -> Mount:
    if mount.type != "bind":
        raise InvalidArgument(f'mount type "{mount.type}" is not supported: netplug has bind mounts only')
    return _checked(mount.source, mount.target, mount.read_only)


def _checked(source: str, target: str, read_only: bool) -> Mount:
    if not source.startswith("/"):
        raise InvalidArgument(f"named volumes are not supported: give {source!r} as an absolute path on the host")
    if not target.startswith("/"):
        raise InvalidArgument(f"invalid mount path: '{target}' mount path must be absolute")
    if posixpath.normpath(target) == "/":
        raise InvalidArgument("invalid specification: destination can't be '/'")
    return Mount(source=posixpath.normpath(source), target=posixpath.normpath(target), read_only=read_only)
