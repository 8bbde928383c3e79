"""`-p`, `--expose` and the PORTS column. Sentences are those of Docker's command."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netplug.cli import ports
from netplug.cli.ports import PortError, Published


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", [("80/tcp", "", "")]),
        ("8080:80", [("80/tcp", "", "8080")]),
        ("53:53/udp", [("53/udp", "", "53")]),
        ("80/SCTP", [("80/sctp", "", "")]),
        ("127.0.0.1:8080:80", [("80/tcp", "127.0.0.1", "8080")]),
        ("127.0.0.1::80", [("80/tcp", "127.0.0.1", "")]),
        ("[::1]:8080:80", [("80/tcp", "::1", "8080")]),
        ("::1:8080:80", [("80/tcp", "::1", "8080")]),
        (":80", [("80/tcp", "", "")]),
        ("80-82:90-92", [("90/tcp", "", "80"), ("91/tcp", "", "81"), ("92/tcp", "", "82")]),
        ("90-91", [("90/tcp", "", ""), ("91/tcp", "", "")]),
        ("8000-8010:80", [("80/tcp", "", "8000-8010")]),
        ("target=80,published=8080,protocol=udp", [("80/udp", "", "8080")]),
        ("target=80", [("80/tcp", "", "")]),
    ],
)
def test_published(text: str, expected: list[tuple[str, str, str]]) -> None:
    assert ports.published(text) == [Published(*each) for each in expected]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x:y", "invalid containerPort: y"),
        ("-1", "invalid containerPort: -1"),
        (" 80", "invalid containerPort:  80"),
        ("65536", "invalid containerPort: 65536"),
        ("80-79:80-79", "invalid containerPort: 80-79"),
        ("80:90-91", "invalid ranges specified for container and host Ports: 90-91 and 80"),
        ("80-81:90-92", "invalid ranges specified for container and host Ports: 90-92 and 80-81"),
        ("1.2.3:80:80", "invalid IP address: 1.2.3"),
        ("80:80/foo", "invalid proto: foo"),
        ("99999:80", "invalid hostPort: 99999"),
        ("1.2.3.4:80", "invalid hostPort: 1.2.3.4"),
        ("80:", "no port specified: 80:<empty>"),
        ("", "no port specified: <empty>"),
        ("target=x", "invalid containerPort: x"),
        ("target=80,foo=1", "invalid field key foo"),
    ],
)
def test_refused(text: str, sentence: str) -> None:
    with pytest.raises(PortError) as caught:
        ports.published(text)

    assert str(caught.value) == sentence


@given(st.text(alphabet="0123456789-:./[]atcpudx=,", max_size=24) | st.text(max_size=12))
def test_whatever_is_typed_is_ports_or_a_port_error(text: str) -> None:
    try:
        found = ports.published(text)
    except PortError:
        return
    assert found
    for spec in found:
        number, protocol = spec.port.split("/")
        assert 0 <= int(number) <= 65535
        assert protocol in ports.PROTOCOLS
        for host_port in spec.host_port.split("-") if spec.host_port else ():
            assert 0 <= int(host_port) <= 65535


@given(st.integers(1, 65000), st.integers(1, 65000), st.integers(0, 300), st.sampled_from(ports.PROTOCOLS))
def test_ranges_map_one_to_one_in_order(container: int, host: int, more: int, protocol: str) -> None:
    found = ports.published(f"{host}-{host + more}:{container}-{container + more}/{protocol}")

    assert found == [Published(f"{container + i}/{protocol}", "", str(host + i)) for i in range(more + 1)]


@given(st.integers(1, 60000), st.integers(1, 60000), st.integers(1, 300), st.integers(1, 300))
def test_ranges_of_different_lengths_are_refused(container: int, host: int, more: int, less: int) -> None:
    if more == less:
        more += 1
    with pytest.raises(PortError, match="invalid ranges specified for container and host Ports"):
        ports.published(f"{host}-{host + less}:{container}-{container + more}")


@pytest.mark.parametrize(("text", "expected"), [("80", ["80/tcp"]), ("80-81/udp", ["80/udp", "81/udp"])])
def test_exposed(text: str, expected: list[str]) -> None:
    assert ports.exposed(text) == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("80:80", "invalid port format for --expose: 80:80"),
        ("foo", 'invalid range format for --expose: foo, error: strconv.ParseUint: parsing "foo": invalid syntax'),
        ("90-80", "invalid range format for --expose: 90-80, error: invalid range specified for port: 90-80"),
        ("80/foo", "invalid proto: foo"),
    ],
)
def test_not_exposed(text: str, sentence: str) -> None:
    with pytest.raises(PortError) as caught:
        ports.exposed(text)

    assert str(caught.value) == sentence


def test_bindings_of_one_port_are_gathered_without_doubles() -> None:
    specs = [spec for text in ("80:80", "127.0.0.1:81:80", "80:80") for spec in ports.published(text)]

    assert ports.bindings(specs) == {"80/tcp": [{"HostIp": "", "HostPort": "80"}, {"HostIp": "127.0.0.1", "HostPort": "81"}]}


def _port(private: int, public: int = 0, address: str = "", protocol: str = "tcp") -> dict[str, Any]:
    return {"PrivatePort": private, "Type": protocol, **({"PublicPort": public, "IP": address} if public else {})}


@pytest.mark.parametrize(
    ("given_ports", "expected"),
    [
        ([], ""),
        ([_port(80)], "80/tcp"),
        ([_port(80, 8080, "0.0.0.0"), _port(80, 8080, "::")], "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"),
        ([_port(92, 92, "0.0.0.0"), _port(90, 90, "0.0.0.0"), _port(91, 91, "0.0.0.0")], "0.0.0.0:90-92->90-92/tcp"),
        ([_port(80), _port(81), _port(83), _port(53, protocol="udp")], "80-81/tcp, 53/udp, 83/tcp"),
        ([_port(80, 8080, "0.0.0.0"), _port(90, 90, "0.0.0.0")], "0.0.0.0:90->90/tcp, 0.0.0.0:8080->80/tcp"),
    ],
)
def test_the_ports_column(given_ports: list[dict[str, Any]], expected: str) -> None:
    assert ports.shown(given_ports) == expected


def test_mapping_lines_are_sorted_by_number() -> None:
    mapping = {"443/tcp": [{"HostIp": "0.0.0.0", "HostPort": "1"}], "80/tcp": [{"HostIp": "::", "HostPort": "2"}], "90/tcp": None}

    assert ports.mapping_lines(mapping) == ["80/tcp -> [::]:2", "443/tcp -> 0.0.0.0:1"]
