"""A host with a real dockerd beside its netplug daemon, for the demo and for tests; netplug is that dockerd's plugin.

Both live in a mount namespace of their own: what the machine has in /run/docker, /etc/docker and /opt is hidden from them, and what they
write there is theirs alone. Needs Debian's docker.io.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import shutil
import socket
import subprocess
import tarfile
import time
from pathlib import Path

from netplug.cli import demo_hosts
from netplug.cli.demo_hosts import Lan, command

PLUGIN = "/run/docker/plugins/netplug.sock"
IMAGE = "busybox"
DOCKER = "/usr/bin/docker"
"""The command of the same version: a newer one asks for things that this dockerd does not know."""
TOOLS = ("dockerd", DOCKER, "unshare", "docker-compose")


class DockerHost(demo_hosts.Host):
    """`start` brings up netplug, `start_dockerd` the other."""

    def __init__(self, lan: Lan, *flags: str, resolv_conf: str | None = "nameserver 127.0.0.1\n") -> None:
        self.dockerd: subprocess.Popen[bytes] | None = None
        self._anchor: subprocess.Popen[bytes] | None = None
        super().__init__(lan, *flags, resolv_conf=resolv_conf)
        self.docker_directory = self.directory / "d"
        self.docker_directory.mkdir()
        self.docker_socket = self.docker_directory / "sock"
        self.docker_log = self.directory / "dockerd.log"
        self.cgroup = f"/np-docker-{os.getpid()}-{self.address.rpartition('.')[2]}"
        self.flags = (*self.flags, "--docker-plugin", PLUGIN, "--docker-host", f"unix://{self.docker_socket}")
        self.docker_environment = dict(self.environment, DOCKER_HOST=f"unix://{self.docker_socket}")
        try:
            self._anchor = self._mounts()
        except BaseException:
            self.close()
            raise

    def _mounts(self) -> subprocess.Popen[bytes]:
        """A process that keeps the mount namespace: daemons come and go in it."""
        hide = "for folder in /run/docker /etc/docker /opt; do [ ! -d $folder ] || mount -t tmpfs tmpfs $folder; done"
        script = f'hostname "$0"; mkdir -p /run/docker; {hide}; echo ready; exec sleep infinity'
        argv = ["unshare", "--mount", "--uts", "--propagation", "private", "sh", "-c", script, f"host{self.address.rpartition('.')[2]}"]
        anchor = subprocess.Popen(self.namespace.argv(*argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert anchor.stdout is not None
        if anchor.stdout.readline() != b"ready\n":
            anchor.kill()
            anchor.wait()
            anchor.stdout.close()
            raise RuntimeError("a mount namespace for dockerd could not be made")
        return anchor

    @property
    def anchor(self) -> int:
        """The pid of that process."""
        assert self._anchor is not None
        return self._anchor.pid

    def argv(self, *argv: str) -> list[str]:
        if self._anchor is None:
            return super().argv(*argv)
        here = str(self._anchor.pid)
        return ["nsenter", "--target", here, "--mount", "--uts", f"--net={self.namespace.path}", f"--wd={self.directory}", *argv]

    def start_dockerd(self, *flags: str, ready: bool = True) -> None:
        """It is ready when this returns, unless that is not asked for."""
        here = str(self.docker_directory)
        places = ["--data-root", f"{here}/data", "--exec-root", f"{here}/exec", "--pidfile", f"{here}/pid", "--host", f"unix://{here}/sock"]
        rest = ["--containerd", "", "--storage-driver", "overlay2", "--cgroup-parent", self.cgroup, *flags]
        # A containerd that is slow to end writes what all its threads do into the folder for temporary files.
        environment = dict(os.environ, TMPDIR=here)
        with self.docker_log.open("ab") as log:
            self.dockerd = subprocess.Popen(
                self.argv("dockerd", *places, *rest), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )
        if ready:
            self.await_dockerd()

    def await_dockerd(self, timeout: float = 60) -> None:
        """It tells systemd only when it is ready; elsewhere its socket is asked again and again."""
        assert self.dockerd is not None
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self.dockerd.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self._ask("GET", "/_ping") == 200:
                    return
            time.sleep(0.05)
        raise RuntimeError(f"dockerd did not start: {self.docker_said()}")

    def _ask(self, method: str, path: str, body: bytes | None = None) -> int:
        """The status of one request to dockerd."""
        connection = http.client.HTTPConnection("localhost", timeout=60)
        with socket.socket(socket.AF_UNIX) as connection.sock, contextlib.closing(connection):
            connection.sock.settimeout(60)
            connection.sock.connect(str(self.docker_socket))
            connection.request(method, path, body, {"Content-Type": "application/x-tar"} if body else {})
            answer = connection.getresponse()
            answer.read()
            return answer.status

    def docker_said(self) -> str:
        """The end of what its dockerds have written."""
        return self.docker_log.read_text(errors="replace")[-5000:] if self.docker_log.exists() else ""

    def stop_dockerd(self) -> None:
        """Without --live-restore, its containers end with it."""
        if self.dockerd is not None:
            self.dockerd.terminate()
            self.dockerd.wait(60)
            self.dockerd = None

    def kill_dockerd(self) -> None:
        """It dies without a word, and its containerd with it (PDEATHSIG). Containers go on."""
        assert self.dockerd is not None
        self.dockerd.kill()
        self.dockerd.wait()
        self.dockerd = None
        # Whether the dead containerd is reaped is up to the machine's first process; the next dockerd would wait for it.
        (self.docker_directory / "exec/containerd/containerd.pid").unlink(missing_ok=True)

    def docker_processes(self) -> list[int]:
        """Of dockerd, its containerd and shims; and what runs in its containers."""
        found = demo_hosts.owned_processes(self.namespace.path, self.docker_directory)
        for group in Path("/sys/fs/cgroup").glob(f"*{self.cgroup}/**/cgroup.procs"):
            with contextlib.suppress(OSError):
                found += map(int, group.read_text().split())
        return sorted(set(found))

    def import_image(self, name: str = IMAGE) -> None:
        """Busybox, from the machine's own."""
        if self._ask("POST", f"/images/create?fromSrc=-&repo={name}&tag=latest", rootfs()) != 200:
            raise RuntimeError(f"the image {name} could not be made: {self.docker_said()}")

    def docker(self, *arguments: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """The command as a user on this host runs it."""
        return command(*self.argv(DOCKER, *arguments), check=check, timeout=timeout, env=self.docker_environment)

    def close(self) -> None:
        if self.dockerd is not None:
            self.dockerd.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.dockerd.wait(60)
            self.dockerd.kill()
            self.dockerd.wait()
        if hasattr(self, "cgroup"):
            demo_hosts.end_processes(self.docker_processes())
        if self._anchor is not None:
            self._anchor.kill()
            self._anchor.wait()
            assert self._anchor.stdout is not None
            self._anchor.stdout.close()
            self._anchor = None
        super().close()
        if hasattr(self, "cgroup"):
            for group in sorted(Path("/sys/fs/cgroup").glob(f"*{self.cgroup}/**/"), reverse=True):
                with contextlib.suppress(OSError):
                    group.rmdir()
            with contextlib.suppress(OSError):
                os.rmdir(f"/sys/fs/cgroup{self.cgroup}")


def rootfs() -> bytes:
    """A tarball of busybox and the links to it: the smallest root file system that can serve and ask."""
    busybox = shutil.which("busybox") or "/bin/busybox"
    applets = command(busybox, "--list").stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for directory in ("bin", "etc", "proc", "sys", "dev", "tmp", "var", "www"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        tar.add(os.path.realpath(busybox), "bin/busybox")
        for applet in applets:
            if applet != "busybox":
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname, link.mode = tarfile.SYMTYPE, "busybox", 0o777
                tar.addfile(link)
    return buffer.getvalue()
