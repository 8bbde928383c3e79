"""The parsers and texts of the API, apart from the server: ports, filters, times, durations, JSON."""

from __future__ import annotations

import contextlib
import datetime
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netplug.api import decode, filters, ports, shapes, views
from netplug.errors import InvalidArgument
from netplug.model import PortBinding

numbers = st.integers(1, 65535)
publishable = st.ip_addresses(v=6).filter(lambda address: not (address.ipv4_mapped or address.is_link_local))
bindings = st.builds(
    PortBinding,
    protocol=st.sampled_from(["tcp", "udp", "sctp"]),
    port=numbers,
    host_ip=st.one_of(st.just(""), st.ip_addresses(v=4).map(str), publishable.map(str)),
    host_port=st.one_of(st.just(0), numbers),
)


@given(st.lists(bindings, unique_by=lambda binding: (binding.port, binding.protocol)))
def test_bindings_come_back_as_they_were_asked_for(asked: list[PortBinding]) -> None:
    wire = ports.as_asked(asked)
    shaped = {port: [shapes.HostPort(host_ip=one["HostIp"], host_port=one["HostPort"]) for one in hosts] for port, hosts in wire.items()}
    assert sorted(map(repr, ports.each(ports.bindings(shaped)))) == sorted(map(repr, asked))


@given(numbers, numbers)
def test_ranges_of_host_ports(one: int, other: int) -> None:
    low, high = sorted((one, other))
    (binding,) = ports.bindings({"80/tcp": [shapes.HostPort(host_port=f"{low}-{high}")]})
    assert (binding.host_port, binding.host_port_end) == (low, 0 if low == high else high)


@given(st.text(max_size=20), st.text(max_size=20))
def test_ports_are_read_or_refused(port: str, host: str) -> None:
    """Nothing but InvalidArgument, whatever comes."""
    try:
        found = ports.bindings({port: [shapes.HostPort(host_port=host)]})
    except InvalidArgument:
        return
    assert all(1 <= binding.port <= 65535 and 0 <= binding.host_port <= 65535 for binding in found)


def test_exposed_ranges() -> None:
    assert ports.exposed(["80", "7000-7002/UDP", "80/tcp"]) == ("80/tcp", "7000/udp", "7001/udp", "7002/udp")


def test_ports_as_a_map_and_as_a_list() -> None:
    published = [PortBinding(protocol="tcp", port=80, host_port=8080), PortBinding(protocol="tcp", port=80, host_ip="::1", host_port=81)]
    assert ports.as_map(published, ["80/tcp", "53/udp"]) == {
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::1", "HostPort": "81"}],
        "53/udp": None,
    }
    assert ports.as_list(published[:1], ["80/tcp", "53/udp"]) == [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"PrivatePort": 53, "Type": "udp"},
    ]


def test_filters_in_both_forms() -> None:
    known = frozenset({"label"})
    assert filters.parse('{"label":["a=b","c"]}', known) == {"label": ("a=b", "c")}
    assert filters.parse('{"label":{"a=b":true}}', known) == {"label": ("a=b",)}
    assert filters.parse("", known) == filters.parse("null", known) == filters.parse("{}", known) == {}


@given(
    st.one_of(
        st.text(max_size=30), st.dictionaries(st.text(max_size=5), st.one_of(st.lists(st.text(max_size=5)), st.none())).map(json.dumps)
    )
)
def test_filters_are_read_or_refused(text: str) -> None:
    try:
        found = filters.parse(text, filters.CONTAINER_KEYS)
    except InvalidArgument:
        return
    assert set(found) <= filters.CONTAINER_KEYS


@given(st.datetimes(datetime.datetime(1970, 1, 2), datetime.datetime(2100, 1, 1)))
def test_times_in_rfc_3339(moment: datetime.datetime) -> None:
    text = f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06d}000Z"
    assert filters.seconds(text) == pytest.approx(moment.replace(tzinfo=datetime.UTC).timestamp(), abs=1e-5)


@given(st.text(max_size=20))
def test_times_are_read_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidArgument):
        assert filters.moment(text) >= -1e12


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["Name", "IPAM", "Config", "Labels", "HostConfig", "Env"]), inner, max_size=3)
        ),
    )
)
def test_any_json_is_a_body_or_is_refused(value: object) -> None:
    for shape in (shapes.NetworkCreate, shapes.ContainerCreate):
        with contextlib.suppress(InvalidArgument):
            assert isinstance(decode.convert(decode.parse(json.dumps(value).encode()), shape), shape)


@pytest.mark.parametrize(
    ("elapsed", "text"),
    [
        (-5, "Less than a second"),
        (0.9, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (7200, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (13 * 86400, "13 days"),
        (14 * 86400, "2 weeks"),
        (59 * 86400, "8 weeks"),
        (60 * 86400, "2 months"),
        (729 * 86400, "24 months"),
        (731 * 86400, "2 years"),
    ],
)
def test_durations(elapsed: float, text: str) -> None:
    assert views.duration(elapsed) == text
