"""Published ports, as far as they are data: rows, host addresses, overlaps, the choice of a number. No sockets but one's own loopback."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netplug.api import ports as api
from netplug.api.shapes import HostPort
from netplug.controller import ephemeral, hostports
from netplug.controller.hostports import HostPorts
from netplug.controller.mappings import Carrier, Carriers, Mapping, exclude, mapping, overlap, published, relay
from netplug.errors import InvalidArgument, NetplugError, PortTaken
from netplug.model import Endpoint, PortBinding, Protocol

ENDPOINT = Endpoint(id="e", network="n", sandbox="s", created="", address="10.0.0.2/24", address6="fd00::2/64")
ONLY4 = Endpoint(id="e", network="n", sandbox="s", created="", address="10.0.0.2/24")
ONLY6 = Endpoint(id="e", network="n", sandbox="s", created="", address6="fd00::2/64")
DUAL: Carriers = {4: Carrier(ENDPOINT), 6: Carrier(ENDPOINT)}

numbers = st.integers(1, 65535)
protocols = st.sampled_from(["tcp", "udp", "sctp"])
host_addresses = st.sampled_from(["", "0.0.0.0", "127.0.0.1", "192.0.2.1", "::", "::1", "2001:db8::1"])


def tcp(port: int, host_port: int = 0, host_ip: str = "", **fields: int) -> PortBinding:
    return PortBinding(protocol="tcp", port=port, host_port=host_port, host_ip=host_ip, **fields)


# Rows: what clients send port by port is one binding


def test_ten_thousand_ports_are_one_binding():
    wanted = {f"{port}/tcp": (HostPort(host_port=str(port)),) for port in sorted(range(20000, 30000), key=str)}

    assert api.bindings(wanted) == (tcp(20000, 20000, count=10000),)


def test_rows_end_where_anything_else_differs():
    wanted = {
        "80/tcp": (HostPort(host_port="8080"), HostPort(host_ip="127.0.0.1", host_port="9090")),
        "81/tcp": (HostPort(host_port="8081"), HostPort(host_ip="127.0.0.1", host_port="9092")),
        "82/udp": (HostPort(host_port="8082"),),
        "83/tcp": (HostPort(host_port="8083"), HostPort(host_port="8000-8010"), HostPort()),
    }

    assert api.bindings(wanted) == (
        tcp(80, 8080, count=2),
        tcp(80, 9090, "127.0.0.1"),
        tcp(81, 9092, "127.0.0.1"),
        PortBinding(protocol="udp", port=82, host_port=8082),
        tcp(83, 8083),
        tcp(83, 8000, host_port_end=8010),
        tcp(83),
    )


@given(st.dictionaries(st.tuples(numbers, protocols), st.lists(st.tuples(host_addresses, st.integers(0, 65535)), max_size=3), max_size=30))
def test_rows_say_what_was_asked_for_and_nothing_else(asked: dict[tuple[int, str], list[tuple[str, int]]]):
    wanted = {
        f"{port}/{protocol}": tuple(HostPort(host_ip=address, host_port=str(number)) for address, number in hosts)
        for (port, protocol), hosts in asked.items()
    }
    every = [(one.protocol, one.port, one.host_ip, one.host_port) for one in api.each(api.bindings(wanted)) if one.host_port]

    assert sorted(every) == sorted(
        {(protocol, port, address, number) for (port, protocol), hosts in asked.items() for address, number in hosts if number}
    )


@given(st.integers(1, 60000), st.integers(1, 60000), st.integers(1, 50))
def test_what_is_shown_is_port_by_port(first: int, host: int, count: int):
    binding = tcp(first, host, "0.0.0.0", count=count)

    assert api.as_map([binding]) == {f"{first + n}/tcp": [{"HostIp": "0.0.0.0", "HostPort": str(host + n)}] for n in range(count)}
    assert [line["PublicPort"] for line in api.as_list([binding], [])] == list(range(host, host + count))
    assert api.numbers([binding]) == [f"{first + n}/tcp" for n in range(count)]


def test_a_port_without_a_host_port_is_shown_as_docker_shows_it():
    """Routed: reached by the container's own address."""
    assert api.as_map([tcp(80, 0, "::")]) == {"80/tcp": [{"HostIp": "::", "HostPort": ""}]}
    assert api.as_list([tcp(80, 0, "::")], []) == [{"IP": "::", "PrivatePort": 80, "Type": "tcp"}]


@pytest.mark.parametrize(
    ("text", "address"),
    [("[::1]", "::1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("2001:DB8:0::1", "2001:db8::1"), ("", "")],
)
def test_host_addresses_have_one_form(text: str, address: str):
    (binding,) = api.bindings({"80": (HostPort(host_ip=text, host_port="80"),)})
    assert binding.host_ip == address


@pytest.mark.parametrize("text", ["fe80::1%eth0", "[::1", "::1]", "localhost", "1.2.3", "[]"])
def test_what_is_no_host_address_is_refused(text: str):
    with pytest.raises(InvalidArgument, match="invalid IP address: "):
        api.bindings({"80": (HostPort(host_ip=text, host_port="80"),)})


def test_publish_all_takes_what_is_not_published_yet():
    taken = (tcp(7000, 9000, count=3),)
    assert api.publish_all(["6999/tcp", "7001/tcp", "7002/udp"], taken) == (tcp(6999), PortBinding(protocol="udp", port=7002))


# Host addresses


@pytest.mark.parametrize(
    ("carriers", "host_ip", "held", "routed"),
    [
        (DUAL, "", ("0.0.0.0", "::"), ()),
        ({4: Carrier(ONLY4)}, "", ("0.0.0.0",), ()),
        ({6: Carrier(ONLY6)}, "", ("::",), ()),
        (DUAL, "::1", ("::1",), ()),
        ({4: Carrier(ONLY4)}, "::", ("::",), ()),
        ({4: Carrier(ENDPOINT, host_binding="127.0.0.1"), 6: Carrier(ENDPOINT, host_binding="127.0.0.1")}, "", ("127.0.0.1",), ()),
        ({4: Carrier(ENDPOINT, host_binding="0.0.0.0"), 6: Carrier(ENDPOINT, host_binding="0.0.0.0")}, "", ("0.0.0.0", "::"), ()),
        ({4: Carrier(ENDPOINT), 6: Carrier(ENDPOINT, routed=True)}, "", ("0.0.0.0",), ("::",)),
        ({4: Carrier(ENDPOINT), 6: Carrier(ENDPOINT, routed=True)}, "2001:db8::1", (), ("::",)),
        ({4: Carrier(ENDPOINT), 6: Carrier(ENDPOINT, routed=True)}, "::1", (), ()),
        ({4: Carrier(ENDPOINT, routed=True), 6: Carrier(ENDPOINT)}, "127.0.0.1", (), ()),
    ],
)
def test_host_addresses(carriers: Carriers, host_ip: str, held: tuple[str, ...], routed: tuple[str, ...]):
    asked = tcp(80, 8080, host_ip)
    assert mapping(asked, carriers) == Mapping(asked, held, routed)


def test_each_ip_version_is_carried_where_its_replies_leave():
    six = Endpoint(id="six", network="n", sandbox="s", created="", address6="fd00::2/64")
    carriers: Carriers = {4: Carrier(ONLY4), 6: Carrier(six)}
    assert published(mapping(tcp(80), carriers), 4711, carriers) == [("e", tcp(80, 4711, "0.0.0.0")), ("six", tcp(80, 4711, "::"))]


def test_an_ip_version_that_nobody_carries_is_relayed_to_the_other():
    carriers: Carriers = {4: Carrier(ONLY4)}
    assert published(mapping(tcp(80, 8080, "::"), carriers), 8080, carriers) == [("e", tcp(80, 8080, "::"))]


@pytest.mark.parametrize(
    ("endpoint", "host_ip", "target", "loopback"),
    [
        (ENDPOINT, "::", "fd00::2", True),
        (ENDPOINT, "::1", "fd00::2", False),
        (ONLY4, "::", "10.0.0.2", False),
        (ONLY4, "::1", "10.0.0.2", False),
        (ONLY4, "2001:db8::1", "10.0.0.2", False),
        (ONLY6, "127.0.0.1", "fd00::2", False),
    ],
)
def test_what_packets_cannot_reach_is_relayed(endpoint: Endpoint, host_ip: str, target: str, loopback: bool):
    found = relay(endpoint, tcp(80, 8080, host_ip, count=3))
    assert found is not None
    assert (found.address, found.port, found.host_port, found.count, found.loopback) == (target, 80, 8080, 3, loopback)


@pytest.mark.parametrize(
    ("endpoint", "binding"),
    [
        (ENDPOINT, tcp(80, 8080, "0.0.0.0")),
        (ENDPOINT, tcp(80, 8080, "127.0.0.1")),
        (ENDPOINT, tcp(80, 8080, "2001:db8::1")),
        (ENDPOINT, tcp(80, 0, "::")),
        (ONLY4, PortBinding(protocol="sctp", port=80, host_port=80, host_ip="::")),
    ],
)
def test_everything_else_is_not(endpoint: Endpoint, binding: PortBinding):
    assert relay(endpoint, binding) is None


# Overlaps


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        (tcp(80, 8080), tcp(81, 8080), True),
        (tcp(80, 8080), tcp(81, 8080, "127.0.0.1"), True),
        (tcp(80, 8080, "::"), tcp(81, 8080, "::1"), True),
        (tcp(80, 8080), tcp(81, 8080, "::1"), True),
        (tcp(80, 8080, "0.0.0.0"), tcp(81, 8080, "::"), False),
        (tcp(80, 8080, "127.0.0.1"), tcp(81, 8080, "127.0.0.2"), False),
        (tcp(80, 8080), PortBinding(protocol="udp", port=80, host_port=8080), False),
        (tcp(80, 8000, count=100), tcp(80, 8099), True),
        (tcp(80, 8000, count=100), tcp(80, 8100), False),
        (tcp(80, 8080), tcp(81, 8080, host_port_end=8090), False),
        (tcp(80), tcp(80), False),
    ],
)
def test_overlapping_forms(one: PortBinding, other: PortBinding, clash: bool):
    for pair in ((one, other), (other, one)):
        found = overlap([mapping(binding, DUAL) for binding in pair])
        assert (found is not None) == clash


bindings = st.builds(tcp, numbers, st.integers(1, 40), host_addresses, count=st.integers(1, 20))


@given(st.lists(bindings, max_size=6))
def test_overlaps_are_found_as_by_looking_at_each_port(asked: list[PortBinding]):
    mappings = [mapping(binding, DUAL) for binding in asked]

    def sockets(found: Mapping) -> list[tuple[str, int]]:
        return [(address, found.asked.host_port + n) for address in found.held for n in range(found.asked.count)]

    clash = any(
        port == other_port and exclude(address, other_address)
        for one, other in itertools.combinations(mappings, 2)
        for address, port in sockets(one)
        for other_address, other_port in sockets(other)
    )
    assert (overlap(mappings) is not None) == clash


def test_bindings_are_named_as_people_write_them():
    assert str(tcp(80, 8080)) == "0.0.0.0:8080->80/tcp"
    assert str(tcp(80, 8080, "::1", count=3)) == "[::1]:8080-8082->80-82/tcp"


# The choice of a number


@given(
    st.integers(1, 400), st.integers(0, 400), st.lists(st.tuples(st.integers(1, 500), st.integers(0, 30)), max_size=4), st.integers(0, 500)
)
def test_ephemeral_ports_come_in_turn(low: int, more: int, blocked: list[tuple[int, int]], last: int):
    reserved = tuple((first, first + length) for first, length in blocked)
    found = list(ephemeral.in_turn(low, low + more, reserved, last))

    allowed = {port for port in range(low, low + more + 1) if not any(first <= port <= end for first, end in reserved)}
    assert set(found) == allowed
    assert len(found) == len(allowed)
    if low <= last < low + more and last + 1 in allowed:
        assert found[0] == last + 1
    assert sum(one > other for one, other in itertools.pairwise(found)) <= 1


@pytest.mark.parametrize(
    ("text", "ranges"), [("", ()), ("8080", ((8080, 8080),)), ("8080,9148-9200", ((8080, 8080), (9148, 9200))), ("1-2\n", ((1, 2),))]
)
def test_the_kernels_lists_of_ports(text: str, ranges: tuple[tuple[int, int], ...]):
    assert ephemeral.parse_ranges(text) == ranges


# Holding


@pytest.fixture
def ports() -> Iterator[HostPorts]:
    held = HostPorts()
    yield held
    held.release_all()


def on(address: str, *bindings: PortBinding) -> list[Mapping]:
    return [Mapping(binding, (address,)) for binding in bindings]


def free_port(count: int = 1) -> int:
    """The first of so many on loopback."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port + count < 65536 and all(_is_free(port + n) for n in range(count)):
            return port


def _is_free(port: int, kind: int = socket.SOCK_STREAM) -> bool:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            if kind == socket.SOCK_STREAM:
                probe.listen()
        except OSError:
            return False
        return True


def test_all_or_nothing(ports: HostPorts):
    port = free_port(3)
    with socket.create_server(("127.0.0.1", port + 2)), pytest.raises(PortTaken, match=f"127.0.0.1:{port + 2}"):
        ports.hold("s", "web", on("127.0.0.1", tcp(80, port, count=2), tcp(90, port + 2)))
    assert _is_free(port)
    assert _is_free(port + 1)


def test_a_held_port_is_nobody_elses(ports: HostPorts):
    port = free_port(2)
    assert ports.hold("s", "web", on("127.0.0.1", tcp(80, port, count=2))) == [port]
    assert not _is_free(port)
    assert not _is_free(port + 1)
    assert _is_free(port, socket.SOCK_DGRAM)
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", port)) != 0

    ports.keep("s", ())
    assert _is_free(port)
    assert _is_free(port + 1)


def test_the_owner_is_named(ports: HostPorts):
    port = free_port()
    ports.hold("s", "web", on("127.0.0.1", tcp(80, port)))
    with pytest.raises(PortTaken) as refused:
        ports.hold("other", "db", on("127.0.0.1", tcp(5432, port)))
    assert str(refused.value) == f"Bind for 127.0.0.1:{port} failed: port is already allocated (by container web)"


def test_one_socket_for_both_ip_versions(ports: HostPorts):
    port = free_port()
    asked = tcp(80, port)
    ports.hold("s", "web", [Mapping(asked, ("0.0.0.0", "::"))])
    (held,) = ports.sockets("s", tcp(80, port, "::"))
    assert ports.sockets("s", tcp(80, port, "0.0.0.0")) == [held]
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::1"), (socket.AF_INET6, "::")):
        with socket.socket(family) as intruder:
            intruder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with pytest.raises(OSError, match="in use"):
                intruder.bind((address, port))


def test_more_is_held_and_less_without_letting_go(ports: HostPorts):
    """The gateway moves to a network with IPv6, and back."""
    port = free_port()
    asked = tcp(80, port)
    ports.hold("s", "web", [Mapping(asked, ("0.0.0.0",))])
    (first,) = ports.sockets("s", tcp(80, port, "0.0.0.0"))
    ports.hold("s", "web", [Mapping(asked, ("0.0.0.0", "::"))])
    assert ports.sockets("s", tcp(80, port, "0.0.0.0")) == [first]
    assert len(ports.sockets("s", tcp(80, port, "::"))) == 1

    ports.keep("s", [tcp(80, port, "0.0.0.0")])
    assert ports.sockets("s", tcp(80, port, "0.0.0.0")) == [first]
    assert ports.sockets("s", tcp(80, port, "::")) == ()


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("127.0.0.1",), ("0.0.0.0",)),
        (("0.0.0.0",), ("127.0.0.1",)),
        (("127.0.0.1",), ("0.0.0.0", "::")),
        (("0.0.0.0", "::"), ("127.0.0.1",)),
    ],
    ids=["wider", "narrower", "to-both", "from-both"],
)
def test_the_same_port_moves_to_another_address(ports: HostPorts, protocol: Protocol, before: tuple[str, ...], after: tuple[str, ...]):
    """The gateway moves to a network that publishes elsewhere: both are held until it is done, and at no time can anybody else come in."""
    port = free_port(3)
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    asked, first, second = (
        PortBinding(protocol=protocol, port=80, host_ip=host_ip, host_port=port, count=3) for host_ip in ("", before[-1], after[-1])
    )
    ports.hold("s", "web", [Mapping(asked, before)])
    ports.hold("s", "web", [Mapping(asked, after)])
    assert len(ports.sockets("s", first)) == len(ports.sockets("s", second)) == 3
    assert not any(_is_free(port + number, kind) for number in range(3))
    ports.keep("s", [second])
    assert ports.sockets("s", first) == ()
    assert not any(_is_free(port + number, kind) for number in range(3))
    ports.keep("s", [])
    assert all(_is_free(port + number, kind) for number in range(3))


def test_a_port_does_not_move_to_where_another_program_is(ports: HostPorts):
    port = free_port()
    asked = tcp(80, port)
    ports.hold("s", "web", [Mapping(asked, ("127.0.0.1",))])
    with socket.create_server(("127.0.0.5", port)), pytest.raises(PortTaken) as refused:
        ports.hold("s", "web", [Mapping(asked, ("0.0.0.0",))])
    assert f"Bind for 0.0.0.0:{port} failed: address already in use on the host (by " in str(refused.value)
    assert not _is_free(port)


def test_fixed_numbers_are_taken_before_others_are_chosen(ports: HostPorts):
    port = free_port(3)
    wanted = (tcp(80, port, host_port_end=port + 2), tcp(81, port), tcp(82, port + 1))
    assert ports.hold("s", "web", on("127.0.0.1", *wanted)) == [port + 2, port, port + 1]


def test_a_range_that_is_full_says_so(ports: HostPorts):
    port = free_port(2)
    ports.hold("s", "web", on("127.0.0.1", tcp(80, port, count=2)))
    with pytest.raises(PortTaken) as refused:
        ports.hold("other", "db", on("127.0.0.1", tcp(80, port, host_port_end=port + 1)))
    assert str(refused.value) == f"Bind for 127.0.0.1:{port}-{port + 1} failed: all ports of that range are allocated"


def test_the_number_of_the_last_time_comes_again_if_it_is_free(ports: HostPorts):
    port = free_port()
    assert ports.hold("s", "web", on("127.0.0.1", tcp(80, preferred=port))) == [port]
    (number,) = ports.hold("other", "db", on("127.0.0.1", tcp(80, preferred=port)))
    assert number not in (0, port)


def test_finished_connections_do_not_keep_a_port(ports: HostPorts):
    """A server that has just been stopped leaves its port in TIME_WAIT: it is to be had all the same, and for one only."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        with socket.create_connection(address) as client:
            server.accept()[0].close()
            assert client.recv(1) == b""
    with socket.socket() as plain, pytest.raises(OSError, match="in use"):
        plain.bind(address)

    assert ports.hold("s", "web", on("127.0.0.1", tcp(80, address[1]))) == [address[1]]
    assert not _is_free(address[1])
    with socket.socket() as caller:
        assert caller.connect_ex(address) != 0


def test_too_many_ports_are_refused_in_one_sentence(ports: HostPorts, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hostports.resource, "getrlimit", lambda which: (hostports.RESERVE + 60, 0))
    with pytest.raises(NetplugError) as refused:
        ports.hold("s", "web", on("127.0.0.1", tcp(20000, 20000, count=100)))
    assert "Bind for 127.0.0.1:" in str(refused.value)
    assert "every port takes a file descriptor" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert ports.held_by("s") == []


@pytest.mark.parametrize(
    ("address", "protocol", "sentence"),
    [
        ("203.0.113.99", "tcp", "Bind for 203.0.113.99:80 failed: Cannot assign requested address"),
        ("2001:db8::99", "udp", r"Bind for \[2001:db8::99\]:80 failed: Cannot assign requested address"),
    ],
)
def test_a_host_address_of_somebody_else(ports: HostPorts, address: str, protocol: str, sentence: str):
    with pytest.raises(InvalidArgument, match=sentence):
        ports.hold("s", "web", [Mapping(PortBinding(protocol=protocol, port=80, host_port=80), (address,))])


def test_sctp_where_the_kernel_has_none(ports: HostPorts, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(hostports._KINDS, "sctp", (socket.SOCK_STREAM, 143))  # no protocol of this number
    with pytest.raises(InvalidArgument) as refused:
        ports.hold("s", "web", [Mapping(PortBinding(protocol="sctp", port=80, host_port=80), ("127.0.0.1",))])
    assert str(refused.value) == "Bind for 127.0.0.1:80 failed: this host's kernel has no SCTP"


def test_sockets_of_another_daemon_are_taken_over(ports: HostPorts):
    """The forwarder has them still: nobody else, and not ourselves, could open others."""
    earlier = HostPorts()
    port = free_port()
    earlier.hold("s", "web", [Mapping(tcp(80, port), ("0.0.0.0", "::"))])
    found: Sequence[hostports.HeldSocket] = earlier.sockets("s", tcp(80, port, "::"))

    ports.adopt("tcp", "::", port, list(found))
    ports.hold("s", "web", [Mapping(tcp(80, port), ("0.0.0.0", "::"))])

    assert ports.sockets("s", tcp(80, port, "0.0.0.0")) == found
