"""Real etcd members for tests: one or three, plain or with TLS and passwords, each stopped, killed and started again on its own.

They run on loopback ports that were free, or where a `Place` says: on an address, in a network namespace. Elections are ten times quicker
than etcd's default, so that a test need not wait for them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from netplug.store.etcd import EtcdStore, Tls

PATIENCE = 30
READY = "serving client traffic"
ROOT_PASSWORD = "of-root"


def require_etcd() -> None:
    if shutil.which("etcd") is None or shutil.which("etcdctl") is None:
        pytest.skip("needs etcd and etcdctl (Debian: etcd-server, etcd-client)")


@dataclass(frozen=True)
class Place:
    """Where a member runs. `enter` comes before its command line, e.g. `("nsenter", "--net=/run/netns/h1")`."""

    address: str = "127.0.0.1"
    enter: tuple[str, ...] = ()
    client_port: int = 0
    peer_port: int = 0

    def with_ports(self) -> Place:
        """0 becomes a port that is free on this machine's loopback."""
        return Place(self.address, self.enter, self.client_port or free_port(), self.peer_port or free_port())


@dataclass(eq=False)
class Member:
    """One etcd process and its data directory."""

    name: str
    place: Place
    directory: Path
    argv: list[str]
    process: subprocess.Popen[bytes] | None = None
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.directory / f"{self.name}.log"

    @property
    def address(self) -> str:
        return f"{_host(self.place)}:{self.place.client_port}"

    def launch(self) -> None:
        """Without waiting for it."""
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([*self.place.enter, *self.argv], stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def start(self) -> None:
        self.launch()
        self.wait_ready()

    def wait_ready(self) -> None:
        """It serves clients: it has joined the others, and there is a leader."""
        assert self.process is not None
        argv = ["timeout", str(PATIENCE), "tail", "--follow", "--lines=+1", f"--pid={self.process.pid}", "--sleep-interval=0.02"]
        with subprocess.Popen([*argv, str(self.log)], stdout=subprocess.PIPE, text=True) as following:
            assert following.stdout is not None
            lines = []
            for line in following.stdout:
                lines.append(line)
                if READY in line:
                    following.terminate()
                    return
        raise AssertionError(f"etcd {self.name} ended or did not start (status {self.process.poll()}):\n{''.join(lines)}")

    def kill(self) -> None:
        """As a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """As its administrator would; a leader hands over first."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """It holds its connections and answers nothing, until `resume`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        self.stop()
        self.start()

    def _end(self, how: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.send_signal(how)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Cluster:
    """Members that are one cluster. `tls`: they speak TLS only and want certificates of clients (`tls.client`)."""

    def __init__(
        self, directory: Path, places: Sequence[Place] = (Place(),), *, tls: Certificates | None = None, quick: bool = True
    ) -> None:
        self.directory, self.tls, self._quick = directory, tls, quick
        self._credentials: list[str] = []
        named = {f"m{number}": place.with_ports() for number, place in enumerate(places, 1)}
        initial = ",".join(f"{name}=http://{_host(place)}:{place.peer_port}" for name, place in named.items())
        self.members = [Member(name, place, directory, self._argv(name, place, initial)) for name, place in named.items()]

    def _argv(self, name: str, place: Place, initial: str) -> list[str]:
        scheme = "https" if self.tls else "http"
        client, peer = f"{scheme}://{_host(place)}:{place.client_port}", f"http://{_host(place)}:{place.peer_port}"
        argv = ["etcd", "--name", name, "--data-dir", str(self.directory / name), "--logger", "zap"]
        argv += ["--listen-client-urls", client, "--advertise-client-urls", client]
        argv += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", initial]
        if self._quick:
            argv += ["--heartbeat-interval", "20", "--election-timeout", "200"]
        if self.tls:
            argv += ["--cert-file", str(self.tls.server.cert), "--key-file", str(self.tls.server.key)]
            argv += ["--trusted-ca-file", str(self.tls.server.ca), "--client-cert-auth"]
        return argv

    def __enter__(self) -> Cluster:
        try:
            self.heal()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.members:
            member.kill()

    @property
    def addresses(self) -> list[str]:
        return [member.address for member in self.members]

    @property
    def running(self) -> list[Member]:
        return [member for member in self.members if member.process]

    def heal(self) -> None:
        """All members run again."""
        missing = [member for member in self.members if not member.process]
        for member in missing:
            member.launch()
        for member in missing:
            member.wait_ready()

    def leader(self) -> Member:
        told = self.ctl("endpoint", "status", "--write-out", "fields")
        by_field = [line.partition(" : ")[2].strip('" ') for line in told.splitlines() if line.startswith(('"MemberID"', '"Leader"'))]
        ids, leaders = by_field[0::2], by_field[1::2]
        return next(member for member, own in zip(self.running, ids, strict=True) if own == leaders[0])

    def ctl(self, *arguments: str, member: Member | None = None) -> str:
        """etcdctl, asking `member` or all that run."""
        asked = [member] if member else self.running
        argv = [*asked[0].place.enter, "etcdctl", "--endpoints", ",".join(one.address for one in asked), *self._credentials]
        if self.tls:
            client = self.tls.client
            argv += ["--cacert", str(client.ca), "--cert", str(client.cert), "--key", str(client.key)]
        environment = {**os.environ, "ETCDCTL_API": "3"}
        done = subprocess.run([*argv, *arguments], env=environment, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, f"etcdctl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def compact(self) -> int:
        """Forgets all revisions but the last, and gives the disk space back; the last revision."""
        fields = self.ctl("endpoint", "status", "--write-out", "fields", member=self.running[0])
        revision = next(line.partition(" : ")[2] for line in fields.splitlines() if line.startswith('"Revision"'))
        self.ctl("compact", revision)
        self.ctl("defrag")
        return int(revision)

    def require_passwords(self, user: str, password: str, prefix: str) -> None:
        """From now on; `user` may do everything below `prefix` and nothing else."""
        self.ctl("user", "add", f"root:{ROOT_PASSWORD}")
        self.ctl("user", "grant-role", "root", "root")
        self.ctl("user", "add", f"{user}:{password}")
        self.ctl("role", "add", user)
        self.ctl("role", "grant-permission", "--prefix", user, "readwrite", prefix)
        self.ctl("user", "grant-role", user, user)
        self.ctl("auth", "enable")
        self._credentials = ["--user", f"root:{ROOT_PASSWORD}"]

    async def store(self, **options: Any) -> EtcdStore:
        """One more client of the cluster; as its administrators would have set it up."""
        if self.tls:
            options.setdefault("tls", self.tls.client)
        return await EtcdStore.open(options.pop("members", self.addresses), **options)


@dataclass(frozen=True)
class Certificates:
    """Made by a certificate authority of our own, for the members and for their clients; `stranger`'s is from another authority."""

    server: Tls
    client: Tls
    stranger: Tls

    @classmethod
    def make(cls, directory: Path, addresses: Sequence[str] = ("127.0.0.1",)) -> Certificates:
        directory.mkdir(parents=True, exist_ok=True)
        names = ",".join(f"IP:{address}" for address in addresses)
        authority, other = _authority(directory / "ca"), _authority(directory / "other")
        server = _certificate(directory / "server", authority, names)
        client = _certificate(directory / "client", authority, names)
        foreign = _certificate(directory / "stranger", other, names)
        return cls(server, client, Tls(authority[0], foreign.cert, foreign.key))


def _authority(stem: Path) -> tuple[Path, Path]:
    cert, key = stem.with_suffix(".pem"), stem.with_suffix(".key")
    _openssl("req", "-x509", *_NEW_KEY, "-keyout", str(key), "-out", str(cert), "-subj", f"/CN={stem.name}")
    return cert, key


def _certificate(stem: Path, authority: tuple[Path, Path], names: str) -> Tls:
    cert, key, request = stem.with_suffix(".pem"), stem.with_suffix(".key"), stem.with_suffix(".csr")
    # No common name: etcd would take the client's for a user name.
    _openssl("req", *_NEW_KEY, "-keyout", str(key), "-out", str(request), "-subj", "/O=netplug", "-addext", f"subjectAltName={names}")
    signing = ("-CA", str(authority[0]), "-CAkey", str(authority[1]), "-CAcreateserial", "-copy_extensions", "copy", "-days", "2")
    _openssl("x509", "-req", "-in", str(request), "-out", str(cert), *signing)
    return Tls(authority[0], cert, key)


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=PATIENCE)


def _host(place: Place) -> str:
    return f"[{place.address}]" if ":" in place.address else place.address


def free_port() -> int:
    """Free when asked; nobody else takes it as long as all take theirs from the kernel."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def etcd_cluster(count: int = 1, **options: Any) -> Iterator[Cluster]:
    """`count` members on loopback, gone at the end with their data."""
    require_etcd()
    with tempfile.TemporaryDirectory(prefix="etcd-") as directory, Cluster(Path(directory), [Place()] * count, **options) as cluster:
        yield cluster
