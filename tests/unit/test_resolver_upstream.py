"""Which upstream servers are asked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from netplug.resolver import upstream

PUBLIC = ("8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", PUBLIC),
        ("search example\n", PUBLIC),
        ("nameserver 10.0.0.1\nnameserver fd00::1\n", ("10.0.0.1", "fd00::1")),
        ("nameserver 127.0.0.1\n", ("127.0.0.1",)),
        ("nameserver\t127.0.0.53 # stub\noptions edns0\n", ("127.0.0.53",)),
        ("#nameserver 1.1.1.1\n;nameserver 1.1.1.1\n nameserver fe80::1%eth0\n", ("fe80::1%eth0",)),
        ("nameserver dns.example\nnameserver\nnameserver 10.0.0.300\nnameserver 10.0.0.3", ("10.0.0.3",)),
        ("".join(f"nameserver 10.0.0.{number}\n" for number in range(5)), ("10.0.0.0", "10.0.0.1", "10.0.0.2")),
    ],
)
def test_nameservers_of_a_resolv_conf(text: str, expected: tuple[str, ...]) -> None:
    assert upstream.nameservers(text) == expected


def test_we_are_not_asked_ourselves() -> None:
    assert upstream.usable(("127.0.0.11", "10.0.0.1", "localhost", "10.0.0.2%eth0")) == ("10.0.0.1",)


def test_a_change_of_the_file_is_seen_within_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, looks = 100.0, 0
    real_stat = os.stat

    def stat(path: str) -> os.stat_result:
        nonlocal looks
        looks += 1
        return real_stat(path)

    monkeypatch.setattr(upstream.time, "monotonic", lambda: now)
    monkeypatch.setattr(upstream.os, "stat", stat)
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver 10.0.0.1\n")
    servers = upstream.HostServers(str(file))
    assert servers() == ("10.0.0.1",)

    (tmp_path / "new").write_text("nameserver 10.0.0.2\n")
    os.replace(tmp_path / "new", file)
    assert servers() == ("10.0.0.1",)
    assert looks == 1

    now += 1
    assert servers() == ("10.0.0.2",)
    file.unlink()
    now += 1
    assert servers() == PUBLIC
    file.write_text("nameserver 10.0.0.3\n")
    now += 1
    assert servers() == ("10.0.0.3",)
