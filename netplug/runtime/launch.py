"""From a container's record to what the OCI runtime needs: the mounted root file system and the bundle, and away with them again."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from netplug.errors import InvalidArgument
from netplug.runtime import bundle, mounts, network_files, users
from netplug.runtime.images import is_host
from netplug.runtime.model import Container
from netplug.runtime.network_files import NetworkFiles
from netplug.runtime.networking import Joined
from netplug.runtime.paths import Paths
from netplug.runtime.trees import exists_inside, remove_plain_tree
from netplug.runtime.users import User

log = logging.getLogger(__name__)

_HOST_TMPFS = (("/run", "mode=755"), ("/tmp", "mode=1777"))
"""Where programs expect to write; the rest of the host image is read-only."""
_HOST_MOUNTS = ("/usr",)
"""Parts of the host that may lie on file systems of their own, without which nothing runs."""


class Launcher:
    def __init__(self, paths: Paths, files: NetworkFiles) -> None:
        self._paths, self._files = paths, files

    def prepare(self, container: Container, joined: Joined) -> None:
        """Mount the root and write the bundle. After an error, `clear` takes away what there is."""
        root = self._paths.mount(container.id)
        if is_host(container.image_id):
            mounts.host(root)
        else:
            record = self._paths.record(container.id)
            mounts.overlay(root, self._paths.image(container.image_id), record / "upper", record / "work")
        folder = self._paths.bundle(container.id)
        folder.mkdir(exist_ok=True)
        spec = self._spec(container, joined, root)
        (folder / "config.json").write_bytes(msgspec.json.encode(bundle.config(spec)))

    def clear(self, container: str) -> None:
        """Unmount the root and remove the bundle. The writable layer and the log stay."""
        mounts.unmount(self._paths.mount(container))
        remove_plain_tree(self._paths.bundle(container))

    def user(self, container: Container, user: str) -> User:
        """Looked up in the running container's root file system."""
        return users.lookup(self._paths.mount(container.id), user)

    def _spec(self, container: Container, joined: Joined, root: Path) -> bundle.Spec:
        config = container.config
        host = is_host(container.image_id)
        user = users.lookup(root, config.user)
        return bundle.Spec(
            root=root,
            arguments=(*config.entrypoint, *config.command),
            environment=self._environment(container, user),
            user=user,
            hostname=self._files.hostname(container),
            domainname=config.domainname,
            cgroup=self._paths.cgroup(container.id),
            namespace=joined.namespace,
            own_network=joined.own,
            working_directory=config.working_directory or "/",
            terminal=config.tty,
            read_only=host,
            privileged=config.privileged,
            capabilities_add=config.capabilities_add,
            capabilities_drop=config.capabilities_drop,
            binds=[*self._user_binds(container, root), *self._file_binds(container, root)],
            tmpfs=[pair for pair in _HOST_TMPFS if host and os.path.isdir(pair[0])],
            sysctls=config.sysctls,
        )

    def _environment(self, container: Container, user: User) -> list[str]:
        config = container.config
        base = [f"PATH={bundle.DEFAULT_PATH}", f"HOSTNAME={self._files.hostname(container)}"]
        base += ["TERM=xterm"] if config.tty else []
        return bundle.environment(base, self._files.link_environment(container), [f"HOME={user.home}"], config.environment)

    def _user_binds(self, container: Container, root: Path) -> list[tuple[str, str, bool]]:
        host = is_host(container.image_id)
        binds = [(part, part, True) for part in _HOST_MOUNTS if host and os.path.ismount(part)]
        for mount in container.config.mounts:
            if not os.path.exists(mount.source):
                # As Docker does for -v: what is not there becomes a folder.
                os.makedirs(mount.source, exist_ok=True)
            if host and not _below(mount.target, _HOST_TMPFS) and not exists_inside(root, mount.target):
                raise InvalidArgument(
                    f"cannot mount {mount.source} on {mount.target}: the host image is read-only and has no {mount.target}"
                )
            binds.append((mount.source, mount.target, mount.read_only))
        return binds

    def _file_binds(self, container: Container, root: Path) -> list[tuple[str, str, bool]]:
        """The network's files, unless the user mounts something there; read-only where the root is."""
        host = is_host(container.image_id)
        taken = {os.path.normpath(mount.target) for mount in container.config.mounts}
        binds = []
        for name in network_files.NAMES:
            target, source = f"/etc/{name}", self._files.file(container, name)
            if target in taken or not source.exists():
                continue
            if host and not _mountable(root, target):
                log.warning("container %s goes without our %s: this host has no such file to mount it on", container.name, target)
                continue
            binds.append((str(source), target, host))
        return binds


def _below(path: str, folders: Sequence[tuple[str, str]]) -> bool:
    return any(path.startswith(f"{folder}/") for folder, _ in folders)


def _mountable(root: Path, target: str) -> bool:
    """On the host image: the file is there, or it is a link into one of the fresh tmpfs, where the runtime can make it."""
    if exists_inside(root, target):
        return True
    real = os.path.normpath(os.path.join(os.path.dirname(target), os.readlink(target))) if os.path.islink(target) else target
    return _below(real, _HOST_TMPFS)
