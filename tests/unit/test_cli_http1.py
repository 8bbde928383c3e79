"""The command's HTTP, against a server that says exactly what it is told to."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netplug.cli.http1 import BadAnswer, Connection, Response

Server = Callable[..., Connection]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """`server(answer, …)` gives a connection to one that sends these pieces and hangs up; what it was asked is in `asked`."""
    path = str(tmp_path / "s")
    opened: list[Connection] = []
    threads: list[threading.Thread] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def connect(*pieces: bytes, until: bytes = b"\r\n\r\n") -> Connection:
            def answer() -> None:
                caller, _ = listener.accept()
                with caller:
                    while not b"".join(asked).endswith(until):
                        asked.append(caller.recv(65536))
                    for piece in pieces:
                        caller.sendall(piece)

            asked.clear()
            threads.append(threading.Thread(target=answer))
            threads[-1].start()
            opened.append(Connection(path))
            return opened[-1]

        yield connect
        for connection in opened:
            connection.close()
        for thread in threads:
            thread.join(10)


asked: list[bytes] = []


def get(server: Server, *pieces: bytes, method: str = "GET") -> Response:
    return server(*pieces).exchange(method, "/x", None, {})


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("pieces", "body"),
    [
        ((OK, b"Content-Length: 5\r\n\r\nhello, and more"), b"hello"),
        ((OK, b"content-length:0\r\n\r\n"), b""),
        ((OK, b"\r\n", b"until ", b"the end"), b"until the end"),
        (
            (OK, b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", b"1", b"0;x=y\r\n, again and agai\r\n1\r\nn\r\n0\r\nT: x\r\n\r\n"),
            b"hello, again and again",
        ),
        ((b"HTTP/1.1 100 Continue\r\n\r\n", OK, b"Content-Length: 2\r\n\r\nok"), b"ok"),
        ((b"HTTP/1.1 204 No Content\r\n\r\nnothing",), b""),
        ((b"HTTP/1.0 200\r\nContent-Length: 2\n\nok",), b"ok"),
    ],
    ids=["length", "empty", "to the end", "chunks", "100", "204", "1.0"],
)
def test_a_body_is_as_long_as_it_says(server: Server, pieces: tuple[bytes, ...], body: bytes) -> None:
    response = get(server, *pieces)

    assert response.read() == body
    assert response.read1(10) == b""


def test_of_head_there_is_no_body(server: Server) -> None:
    assert get(server, OK + b"Content-Length: 5\r\n\r\n", method="HEAD").read() == b""


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "Remote end closed connection without response"),
        (b"SSH-2.0-OpenSSH\r\n", "is no HTTP"),
        (b"HTTP/1.1 twice OK\r\n\r\n", "is no HTTP"),
        (OK[:-5], "unexpected EOF"),
        (OK + b"Content-Length: 5\r\n", "unexpected EOF"),
        (OK + b"Content-Length: 5\r\n\r\nhel", "unexpected EOF"),
        (OK + b"Content-Length: five\r\n\r\nhel", "'five' is no number"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel", "unexpected EOF"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "unexpected EOF"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nz\r\n", "'z' is no number"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n", "'llo' where a chunk should end"),
    ],
)
def test_an_answer_that_is_none(server: Server, answer: bytes, words: str) -> None:
    with pytest.raises(BadAnswer, match=words):
        get(server, answer).read()


def test_what_is_asked(server: Server) -> None:
    connection = server(OK + b"\r\n", until=b"{}")
    connection.exchange("POST", "/x?y=z", b"{}", {"Content-Type": "application/json"}).read()
    assert b"".join(asked) == (b"POST /x?y=z HTTP/1.1\r\nHost: netplug\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")

    connection = server(OK + b"\r\n", until=b"0\r\n\r\n")
    connection.exchange("POST", "/x", iter([b"some", b"", b"thing longer"]), {}).read()
    assert b"".join(asked).partition(b"\r\n\r\n")[2] == b"4\r\nsome\r\nc\r\nthing longer\r\n0\r\n\r\n"


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Connection(str(tmp_path / "none"))
