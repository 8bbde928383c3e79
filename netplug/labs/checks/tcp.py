"""What becomes of a TCP connection?"""

from __future__ import annotations

import socket
from typing import Literal

from netplug.kernel import namespaces
from netplug.labs.checks.base import Check, Find

_PATIENCE = 1.5


class TcpCheck(Check, frozen=True, tag="tcp"):
    """Connects, asks for `/` as HTTP does, and reads."""

    to: str
    """ADDRESS:PORT."""
    result: Literal["answer", "refused", "silence"] = "answer"
    says: str = ""
    """What must stand in the answer."""

    def look(self, find: Find) -> None:
        place = self.place(find)
        result, text = knock(place.path, self.to)
        said = f" that says {self.says!r}" if self.says else ""
        if result != self.result:
            raise self.unmet(f"{_NAMED[self.result]}{said} from {self.to}, asked from {self.at}", _NAMED.get(result, result))
        if self.says not in text:
            raise self.unmet(f"an answer from {self.to}{said}", f"an answer that says {text[-60:].strip()!r}")


_NAMED = {"answer": "an answer", "refused": "a refusal (connection refused)", "silence": "silence (no answer in time)"}


def knock(path: str, to: str) -> tuple[str, str]:
    """What happened (`answer`, `refused`, `silence`, or the kernel's words) and what was said, from the namespace at `path`."""
    address, _, port = to.rpartition(":")
    with namespaces.open_socket(path, socket.AF_INET, socket.SOCK_STREAM) as connection:
        connection.settimeout(_PATIENCE)
        try:
            connection.connect((address, int(port)))
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return "answer", _read(connection)
        except ConnectionRefusedError:
            return "refused", ""
        except TimeoutError:
            return "silence", ""
        except OSError as error:
            return error.strerror or str(error), ""


def _read(connection: socket.socket) -> str:
    """All that is said, up to a page."""
    said = b""
    while len(said) < 1 << 16 and (piece := connection.recv(4096)):
        said += piece
    return said.decode(errors="replace")
