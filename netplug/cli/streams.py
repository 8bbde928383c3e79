"""A container's streams on our own: copying stdin, stdout and stderr over an upgraded connection, and the terminal.

With a terminal the container's output comes as it is; without, in frames (byte 1 stdout or 2 stderr, three zero bytes, length, data),
and here each goes to its own. Our terminal is raw while a container's is attached, and restored whatever happens. `ctrl-p ctrl-q`
detaches: the container goes on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import BinaryIO

from netplug.cli.client import Client, Upgraded
from netplug.cli.command import Failure

DETACH_KEYS = "ctrl-p,ctrl-q"
_CHUNK = 8192
_HEADER = struct.Struct(">BxxxI")
_PROXIED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


class DetachKeys:
    """Finds the key sequence in what is typed; what only began like it is passed on."""

    def __init__(self, text: str) -> None:
        self._keys = detach_keys(text)
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What to pass on, and whether the sequence was completed."""
        out = bytearray()
        for value in data:
            key = bytes([value])
            if self._keys and self._keys[len(self._held) :][:1] == key:
                self._held += key
                if self._held == self._keys:
                    return bytes(out), True
                continue
            out += self._held
            self._held = key if self._keys[:1] == key else b""
            out += b"" if self._held else key
        return bytes(out), False


def detach_keys(text: str) -> bytes:
    """`ctrl-p,ctrl-q` or `a,b` as the bytes that a terminal sends."""
    keys = bytearray()
    for name in text.split(",") if text else []:
        control = name.removeprefix("ctrl-")
        if len(name) == 1:
            keys += name.encode()
        elif name.startswith("ctrl-") and len(control) == 1 and ((control.isascii() and control.isalpha()) or control in "@[\\]^_"):
            keys.append(ord(control.upper()) & 0x1F)
        else:
            raise ValueError(f"Unknown character: '{name}'")
    return bytes(keys)


def frames(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """(1 stdout or 2 stderr, data), from chunks that were cut anywhere."""
    pending = bytearray()
    for chunk in chunks:
        pending += chunk
        while len(pending) >= _HEADER.size:
            stream, length = _HEADER.unpack_from(pending)
            if len(pending) < _HEADER.size + length:
                break
            yield stream, bytes(pending[_HEADER.size : _HEADER.size + length])
            del pending[: _HEADER.size + length]


def copy_out(chunks: Iterable[bytes], terminal: bool) -> None:
    """A container's output to our stdout and stderr, at once."""
    outputs: dict[int, BinaryIO] = {1: sys.stdout.buffer, 2: sys.stderr.buffer}
    for stream, data in ((1, chunk) for chunk in chunks) if terminal else frames(chunks):
        output = outputs.get(stream, outputs[1])
        output.write(data)
        output.flush()


class Session:
    """A container's streams, or an exec's, connected to ours. `path` is the API's path of what has the terminal."""

    def __init__(self, client: Client, connection: Upgraded, path: str, *, terminal: bool, stdin: bool, keys: str = DETACH_KEYS) -> None:
        self._client, self._connection, self._path = client, connection, path
        self._terminal, self._stdin = terminal, stdin
        self._keys = DetachKeys(keys if terminal else "")
        self.detached = False

    def run(self, after: Callable[[], object] | None = None) -> None:
        """Copy until the output ends or the user detaches. `after` starts what is attached to."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._connection.close)
            if self._terminal and self._stdin:
                stack.enter_context(raw_terminal(sys.stdin.fileno()))
            if after:
                after()
            if self._terminal:
                stack.enter_context(handling((signal.SIGWINCH,), lambda number: self.resize()))
                threading.Thread(target=self._first_resize, daemon=True).start()
            if self._stdin:
                threading.Thread(target=self._copy_in, daemon=True).start()
            else:
                self._connection.end_of_input()
            copy_out(iter(lambda: self._connection.read(65536), b""), self._terminal)

    def _copy_in(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while data := os.read(sys.stdin.fileno(), _CHUNK):
                passed, self.detached = self._keys.feed(data)
                self._connection.write(passed)
                if self.detached:
                    self._connection.hang_up()
                    return
            self._connection.end_of_input()

    def resize(self, more: int = 0) -> bool:
        """Tell the container how large our terminal is (and `more`)."""
        try:
            size = os.get_terminal_size(sys.stdout.fileno())
        except OSError:
            return True  # our stdout is no terminal: the container's keeps its size
        try:
            self._client.call("POST", f"{self._path}/resize", {"h": str(size.lines + more), "w": str(size.columns + more)})
        except Failure:
            return False
        return True

    def _first_resize(self) -> None:
        """An exec's terminal may not be there yet."""
        for attempt in range(10):
            if self.resize():
                return
            time.sleep(0.01 * (attempt + 1))


class Terminated(SystemExit):
    """A signal that ends us while the terminal is raw."""


@contextlib.contextmanager
def raw_terminal(descriptor: int) -> Iterator[None]:
    """Our terminal passes every key on; restored at the end, also when a signal ends us."""
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)

    def end(number: int) -> None:
        raise Terminated(128 + number)

    with handling((signal.SIGTERM, signal.SIGHUP), end):
        try:
            # At once: by default it would first throw away what was typed ahead.
            tty.setraw(descriptor, termios.TCSANOW)
            yield
        finally:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextlib.contextmanager
def handling(numbers: Iterable[signal.Signals], handler: Callable[[int], object]) -> Iterator[None]:
    """Signals handled for a while."""

    def called(number: int, frame: FrameType | None) -> None:
        handler(number)

    before = {number: signal.signal(number, called) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


@contextlib.contextmanager
def proxied_signals(client: Client, container: str) -> Iterator[None]:
    """Signals that we get go to the container: Ctrl-C ends it, and its end ends us."""

    def forward(number: int) -> None:
        with contextlib.suppress(Failure):  # it may have ended just now
            client.call("POST", f"/containers/{container}/kill", {"signal": signal.Signals(number).name.removeprefix("SIG")})

    with handling(_PROXIED, forward):
        yield
