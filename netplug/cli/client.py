"""HTTP to the daemon over its unix socket, with the standard library only.

`Client.call` is a request with a JSON answer; `Client.lines` reads an answer of JSON lines as they come; `Client.open` gives the raw
answer of a stream (logs, wait); `Client.upgrade` takes the connection over for attach and exec, as Docker's hijack does. Each request
has a connection of its own: on a unix socket that costs 0.1 ms, and none can have gone stale while a container ran.

Errors: `Unreachable` (no daemon, or no permission) and `DaemonError` (its sentence); both are `Failure`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from typing import IO, Any, Literal
from urllib.parse import quote, urlencode

from netplug.cli.command import Failure

DEFAULT_HOST = "unix:///run/netplug/netplug.sock"
JSON = dict[str, Any]
Method = Literal["GET", "POST", "DELETE", "HEAD"]


class Unreachable(Failure):
    """There is no daemon to talk to."""


class DaemonError(Failure):
    """The daemon refused or failed; `reason` is its sentence."""

    def __init__(self, status: int, reason: str) -> None:
        self.status, self.reason = status, reason
        super().__init__(f"Error response from daemon: {reason}")


def segment(text: str) -> str:
    """A name or id as one segment of a path; an empty one would ask for something else, the list of all."""
    if not text:
        raise Failure("invalid name or ID: value is empty")
    return quote(text, safe="")


def filters_query(filters: Mapping[str, Mapping[str, bool]]) -> dict[str, str]:
    """The `filters` parameter, left out if there are none."""
    return {"filters": json.dumps(filters)} if filters else {}


class _Connection(http.client.HTTPConnection):
    """An HTTP connection whose socket is a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("netplug")
        self._path = path

    def connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(self._path)
        except BaseException:
            connection.close()
            raise
        self.sock = connection


class Answer:
    """An answer whose body is read as it comes."""

    def __init__(self, connection: _Connection, response: http.client.HTTPResponse) -> None:
        self._connection, self._response = connection, response

    def chunks(self) -> Iterator[bytes]:
        """What has arrived, as soon as it has."""
        try:
            while chunk := self._response.read1(65536):
                yield chunk
        except http.client.HTTPException as error:  # in the middle of an answer that is as long as it takes
            raise Failure("the daemon ended the connection: unexpected EOF") from error
        except OSError as error:
            raise Failure(f"the daemon ended the connection: {error}") from error
        finally:
            self.close()

    def json(self) -> Any:
        body = b"".join(self.chunks())
        return json.loads(body) if body.strip() else {}

    def lines(self) -> Iterator[Any]:
        """JSON values, one a line (newlines between them are optional, as Docker's own are)."""
        decoder, pending = json.JSONDecoder(), b""
        for chunk in self.chunks():
            *complete, pending = (pending + chunk).split(b"\n")
            for line in complete:
                if line.strip():
                    yield decoder.decode(line.decode())
        if pending.strip():
            yield decoder.decode(pending.decode())

    def close(self) -> None:
        self._response.close()
        self._connection.close()


class Upgraded:
    """A connection that carries a container's streams both ways."""

    def __init__(self, connection: _Connection, response: http.client.HTTPResponse) -> None:
        # The response's file may hold bytes that came in the same packet as the header, so it is what is read from.
        self._connection, self._response = connection, response
        self._socket: socket.socket = connection.sock
        self._file: IO[bytes] = response.fp

    def read(self, size: int) -> bytes:
        """What has arrived; b"" at the end, however it came."""
        try:
            return self._file.read1(size)  # type: ignore[attr-defined, no-any-return]
        except (OSError, ValueError):
            return b""

    def write(self, data: bytes) -> None:
        self._socket.sendall(data)

    def end_of_input(self) -> None:
        """Half-close: the container's stdin ends, its output goes on."""
        self._shutdown(socket.SHUT_WR)

    def hang_up(self) -> None:
        """End both ways; a `read` that waits in another thread returns."""
        self._shutdown(socket.SHUT_RDWR)

    def _shutdown(self, how: int) -> None:
        try:
            self._socket.shutdown(how)
        except OSError:
            return  # the other side was quicker

    def close(self) -> None:
        self._response.close()
        self._connection.close()


class Client:
    """One daemon, at `unix://PATH`."""

    def __init__(self, host: str = "") -> None:
        self.host = host or os.environ.get("NETPLUG_HOST") or DEFAULT_HOST
        scheme, separator, path = self.host.partition("://")
        if scheme != "unix" or not separator or not path:
            raise Failure(f'unable to parse host "{self.host}": a netplug daemon is reached at unix://PATH', 125)
        self._path = path

    def call(self, method: Method, path: str, query: Mapping[str, str] | None = None, body: Any = None) -> Any:
        """One request, its JSON answer ({} where it has none)."""
        return self.open(method, path, query, body).json()

    def lines(self, path: str, query: Mapping[str, str] | None = None) -> Iterator[Any]:
        """A GET whose answer is JSON lines, endless perhaps."""
        return self.open("GET", path, query).lines()

    def open(
        self, method: Method, path: str, query: Mapping[str, str] | None = None, body: Any = None, stream: Iterator[bytes] | None = None
    ) -> Answer:
        """A request whose answer is read piecemeal; `stream` is a raw body sent in chunks. Returns when the header has come."""
        headers = {"Content-Type": "application/x-tar"} if stream is not None else {}
        connection, response = self._send(method, path, query, body, headers, stream)
        return Answer(connection, response)

    def upgrade(self, path: str, query: Mapping[str, str] | None = None, body: Any = None) -> Upgraded:
        """POST, and take the connection over."""
        connection, response = self._send("POST", path, query, body, {"Connection": "Upgrade", "Upgrade": "tcp"})
        return Upgraded(connection, response)

    def process(self) -> int:
        """The daemon's pid, as this process sees it (SO_PEERCRED)."""
        connection = _Connection(self._path)
        try:
            connection.connect()
            pid, _, _ = struct.unpack("=iII", connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        except OSError as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()
        if not pid:
            raise Failure(f"the daemon at {self.host} lives among processes that are not seen from here")
        return int(pid)

    def is_netplug(self) -> bool:
        """Whether this is a netplug daemon, and not another that speaks Docker's API."""
        version = self.call("GET", "/version")
        return bool((version.get("Platform") or {}).get("Name") == "netplug")

    def _send(
        self,
        method: Method,
        path: str,
        query: Mapping[str, str] | None,
        body: Any,
        headers: dict[str, str],
        stream: Iterator[bytes] | None = None,
    ) -> tuple[_Connection, http.client.HTTPResponse]:
        target = path + ("?" + urlencode(query) if query else "")
        payload: Any = stream
        if body is not None:
            payload, headers = json.dumps(body).encode(), {**headers, "Content-Type": "application/json"}
        connection = _Connection(self._path)
        try:
            connection.connect()
        except OSError as error:
            raise self._unreachable(error) from error
        try:
            with contextlib.suppress(BrokenPipeError):  # the daemon answered before it had read all: its answer says why
                connection.request(method, target, payload, headers)
            response = connection.getresponse()
        except (http.client.HTTPException, OSError) as error:
            connection.close()
            raise Failure(f"the daemon at {self.host} ended the connection: {error}") from error
        if response.status >= 400:
            failure = DaemonError(response.status, _reason(response))
            connection.close()
            raise failure
        return connection, response

    def _unreachable(self, error: OSError) -> Unreachable:
        if isinstance(error, PermissionError):
            return Unreachable(f"permission denied while trying to connect to the netplug daemon socket at {self.host}")
        return Unreachable(f"Cannot connect to the netplug daemon at {self.host}. Is the netplug daemon running?")


def _reason(response: http.client.HTTPResponse) -> str:
    """The sentence in an error answer; the body itself if it is not Docker's JSON."""
    body = response.read().decode(errors="replace").strip()
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body or f"{response.status} {response.reason}"
