"""Values of flags, times and sizes: text in, value or reason out."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netplug.cli import command, options, units


@pytest.mark.parametrize(
    ("parse", "text", "expected"),
    [
        (options.pair, "a=b=c", ("a", "b=c")),
        (options.label, "stage", ("stage", "")),
        (options.filter_pair, "Label=a=b", ("label", "a=b")),
        (options.environment, "A=", "A="),
        (options.environment, "NOT_SET_ANYWHERE", "NOT_SET_ANYWHERE"),
        (options.dns_server, "1.1.1.1", "1.1.1.1"),
        (options.dns_server, "2001:db8::1", "2001:db8::1"),
        (options.dns_search, ".", "."),
        (options.dns_search, "a_b.example.com", "a_b.example.com"),
        (options.extra_host, "db:10.0.0.1", "db:10.0.0.1"),
        (options.extra_host, "db=[::1]", "db:::1"),
        (options.extra_host, "host:host-gateway", "host:host-gateway"),
        (options.link, "web:alias", "web:alias"),
        (options.sysctl, "net.core.somaxconn=9", ("net.core.somaxconn", "9")),
        (options.mac_address, "02:42:ac:11:00:02", "02:42:ac:11:00:02"),
        (options.volume, "/a:/b:ro", "/a:/b:ro"),
        (options.attachment, "demo", ("demo", {})),
        (
            options.attachment,
            "name=demo,alias=a,alias=b,ip=10.0.0.9,ip6=fd00::9,mac-address=02:42:ac:11:00:02,gw-priority=-1,driver-opt=k=v",
            (
                "demo",
                {
                    "Aliases": ["a", "b"],
                    "IPAMConfig": {"IPv4Address": "10.0.0.9", "IPv6Address": "fd00::9"},
                    "MacAddress": "02:42:ac:11:00:02",
                    "GwPriority": -1,
                    "DriverOpts": {"k": "v"},
                },
            ),
        ),
        (command.boolean, "T", True),
        (command.boolean, "0", False),
        (command.integer, "-5", -5),
    ],
)
def test_understood(parse: Callable[[str], Any], text: str, expected: Any) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("parse", "text", "reason"),
    [
        (options.label, "=x", "invalid label '=x': empty name"),
        (options.filter_pair, "foo", "bad format of filter (expected name=value)"),
        (options.environment, "=x", "invalid environment variable: =x"),
        (options.dns_server, "foo", "IP address is not correctly formatted: foo"),
        (options.dns_search, "a!b", "a!b is not a valid domain"),
        (options.extra_host, "foo", 'bad format for add-host: "foo"'),
        (options.extra_host, "foo:bar", 'invalid IP address in add-host: "bar"'),
        (options.link, "a:b:c", "bad format for links: a:b:c"),
        (options.sysctl, "kernel.hostname=x", "sysctl 'kernel.hostname=x' is not allowed"),
        (options.sysctl, "net.a", "sysctl 'net.a' is not allowed"),
        (options.mac_address, "zz", "zz is not a valid mac address"),
        (options.mac_address, "02:42-ac:11:00:02", "02:42-ac:11:00:02 is not a valid mac address"),
        (options.attachment, "name=", "network name/id is not specified"),
        (options.attachment, "name=demo,foo=1", "invalid field key foo"),
        (options.attachment, "name=demo,foo", "invalid field foo"),
        (options.attachment, "name=demo,gw-priority=x", "invalid gw-priority (x): invalid syntax"),
        (options.driver_option, "foo", "invalid key value pair format in driver options"),
        (command.boolean, "foo", 'strconv.ParseBool: parsing "foo": invalid syntax'),
        (command.integer, "x", 'strconv.ParseInt: parsing "x": invalid syntax'),
    ],
)
def test_refused(parse: Callable[[str], Any], text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        parse(text)

    assert str(caught.value) == reason


_PARSERS: list[Callable[[str], Any]] = [
    *(options.attachment, options.extra_host, options.dns_search, options.dns_server, options.link, options.sysctl, options.mac_address),
    *(options.filter_pair, options.label, options.environment, options.volume, units.duration, units.since, command.integer),
]


@given(st.sampled_from(_PARSERS), st.text(alphabet="abz019.:=,-/[]!\"' \n", max_size=30) | st.text(max_size=10))
def test_whatever_is_typed_is_a_value_or_a_value_error(parse: Callable[[str], Any], text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse(text) is not None


def test_a_relative_volume_is_where_we_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)

    assert options.volume("./data:/data:ro") == f"{tmp_path}/data:/data:ro"


def test_an_environment_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A bare name takes our own value, and is left out where we have none; blanks at the start, comments and empty lines go."""
    monkeypatch.setenv("OURS", "1")
    monkeypatch.delenv("NOBODYS", raising=False)
    file = tmp_path / "env"
    file.write_text("# comment\n\n  A=b c\nOURS\nNOBODYS\nX=\n")

    assert options.environment_file(str(file)) == ["A=b c", "OURS=1", "X="]


@pytest.mark.parametrize(("line", "reason"), [("a b=1", "variable 'a b' contains whitespaces"), ("=1", "no variable name on line '=1'")])
def test_a_bad_environment_file(tmp_path: Path, line: str, reason: str) -> None:
    file = tmp_path / "env"
    file.write_text(line)

    with pytest.raises(ValueError, match="invalid env file") as caught:
        options.environment_file(str(file))

    assert str(caught.value) == f"invalid env file ({file}): {reason}"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.5, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (120, "2 minutes"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (5400, "2 hours"),
        (86400, "24 hours"),
        (86400 * 3, "3 days"),
        (86400 * 15, "2 weeks"),
        (86400 * 90, "3 months"),
        (86400 * 800, "2 years"),
    ],
)
def test_spans_in_words(seconds: float, expected: str) -> None:
    assert units.human_duration(seconds) == expected


@pytest.mark.parametrize(("size", "expected"), [(0, "0B"), (999, "999B"), (1880, "1.88kB"), (1_982_256, "1.98MB"), (5_000_000_000, "5GB")])
def test_sizes(size: int, expected: str) -> None:
    assert units.human_size(size) == expected


@pytest.mark.parametrize(("text", "expected"), [("1h30m", 5400), ("1.5s", 1.5), ("250ms", 0.25), ("0", 0), ("-5m", -300)])
def test_durations(text: str, expected: float) -> None:
    assert units.duration(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31T12:00:00.5Z", "1769860800.500000000"),
        ("2026-01-31T12:00:00+01:00", "1769857200.000000000"),
        ("1769860800", "1769860800"),
        ("1769860800.25", "1769860800.25"),
        ("10m", "400.000000000"),
    ],
)
def test_since_for_the_api(text: str, expected: str) -> None:
    assert units.since(text, now=1000) == expected


def test_times_in_words() -> None:
    assert units.age("2026-01-31T12:00:00.123456789Z", now=1769860800 + 125) == "2 minutes ago"
    assert units.age("", now=0) == ""
    assert units.go_time("2026-01-31T12:00:00.120Z") == "2026-01-31 12:00:00.12 +0000 UTC"
    assert units.go_time("2026-01-31T12:00:00+01:00") == "2026-01-31 12:00:00 +0100 +0100"
