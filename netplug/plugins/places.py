"""Where plugins say that they are: a file per plugin, looked for whenever one is used, so that they may come and go.

`NAME.sock` is the socket itself; `NAME.spec` holds a URL, `NAME.json` a URL and TLS files. Each may be in a folder of its own name.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from netplug.errors import InvalidArgument, Unavailable

FOLDERS = ("/run/docker/plugins", "/etc/docker/plugins", "/usr/lib/docker/plugins")
PATH = "NETPLUG_PLUGIN_PATH"
"""Environment variable with other folders instead, as in PATH."""

_KINDS = (".sock", ".spec", ".json")
_LARGEST = 1 << 16


class Tls(
    msgspec.Struct,
    frozen=True,
    rename={"ca_file": "CAFile", "cert_file": "CertFile", "key_file": "KeyFile", "insecure": "InsecureSkipVerify"},
):
    """Paths of PEM files. Without a CA nothing is verified, as with Docker."""

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    insecure: bool = False


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """`socket`: a path; else `url`, of http or https. `token` changes when another process may be there."""

    socket: str = ""
    url: str = ""
    tls: Tls = Tls()
    token: str = ""


class _Specification(msgspec.Struct, rename={"address": "Addr", "tls": "TLSConfig"}):
    address: str
    tls: Tls | None = None


def names() -> list[str]:
    """Of all plugins that there are, whatever they are for."""
    return sorted({path.stem for folder in _folders() for path in _files(folder)})


def find(name: str) -> Place:
    """Unavailable: there is none of that name now. InvalidArgument: its file says nothing that can be used."""
    for folder in _folders():
        for kind in _KINDS:
            for path in (folder / f"{name}{kind}", folder / name / f"{name}{kind}"):
                if path in _files(folder):
                    return _place(path)
    raise Unavailable(f'plugin "{name}" is not there: no {name}.sock, .spec or .json in {", ".join(map(str, _folders()))}')


def _folders() -> list[Path]:
    given = os.environ.get(PATH, "")
    return [Path(folder) for folder in (given.split(":") if given else FOLDERS) if folder]


def _files(folder: Path) -> Iterator[Path]:
    """A folder inside counts where it has the plugin's name."""
    for path in _listed(folder):
        if path.suffix in _KINDS and _fits(path):
            yield path
        elif path.is_dir():
            yield from (inner for inner in _listed(path) if inner.suffix in _KINDS and inner.stem == path.name and _fits(inner))


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _fits(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISSOCK(mode) if path.suffix == ".sock" else stat.S_ISREG(mode)


def _place(path: Path) -> Place:
    try:
        found = path.stat()
        token = f"{path}:{found.st_ino}:{found.st_mtime_ns}"
        if path.suffix == ".sock":
            return Place(socket=str(path), token=token)
        with path.open("rb") as file:
            data = file.read(_LARGEST)
    except OSError as error:
        raise Unavailable(f"plugin file {path} cannot be read: {error.strerror}") from error
    if path.suffix == ".spec":
        return _addressed(path, data.decode(errors="replace").strip(), Tls(), token)
    try:
        said = msgspec.json.decode(data, type=_Specification)
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"plugin file {path} cannot be used: {error}") from error
    return _addressed(path, said.address, said.tls or Tls(), token)


def _addressed(path: Path, address: str, tls: Tls, token: str) -> Place:
    """By URL; `tcp://HOST:PORT` is HTTP, over TLS where there are certificates."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    if parts.scheme == "unix" and parts.path:
        return Place(socket=parts.netloc + parts.path, token=token)
    if parts.scheme in ("tcp", "http", "https") and host:
        secure = parts.scheme == "https" or bool(parts.scheme == "tcp" and (tls.ca_file or tls.cert_file))
        shown = f"[{host}]" if ":" in host else host
        url = f"{'https' if secure else 'http'}://{shown}{f':{port}' if port else ''}{parts.path.rstrip('/')}"
        return Place(url=url, tls=tls, token=token)
    raise InvalidArgument(
        f'plugin file {path} cannot be used: "{address[:80]}" is no URL like unix:///PATH, tcp://HOST:PORT or https://HOST/PATH'
    )
