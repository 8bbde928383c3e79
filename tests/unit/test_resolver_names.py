"""Tables, views and the answers they give, without a socket."""

from __future__ import annotations

import socket

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netplug.resolver import answers, names, wire
from netplug.resolver.names import Directory, View


def directory() -> Directory:
    """Two networks: web and db in demo, another web in back; a pair that shares the alias `api`."""
    directory = Directory()
    directory.put("n1", "e1", ["web", "www", "0123456789ab"], ["10.0.0.2"], "demo")
    directory.put("n1", "e2", ["db", "api"], ["10.0.0.3", "fd00::3"], "demo")
    directory.put("n1", "e3", ["v6", "api"], ["fd00::4"], "demo")
    directory.put("n2", "e4", ["web", "cache"], ["10.1.0.2"], "back")
    return directory


def ask(view: View, name: str, qtype: str = "A", limit: int = 0, udp_len: int = 0) -> list[dnslib.DNSRecord] | None:
    """The answers as dnslib reads them."""
    record = dnslib.DNSRecord(dnslib.DNSHeader(id=9, rd=1), q=dnslib.DNSQuestion(name, getattr(dnslib.QTYPE, qtype)))
    if udp_len:
        record.add_ar(dnslib.EDNS0(udp_len=udp_len))
    messages = answers.answer(view, wire.parse(bytes(record.pack())), limit)
    return None if messages is None else [dnslib.DNSRecord.parse(message) for message in messages]


def addresses(view: View, name: str, qtype: str = "A") -> list[str] | None:
    """The addresses of the first answer; None: not ours."""
    records = ask(view, name, qtype)
    return None if records is None else [str(rr.rdata) for rr in records[0].rr]


@pytest.mark.parametrize(
    ("name", "qtype", "expected"),
    [
        ("web", "A", ["10.0.0.2"]),
        ("www", "A", ["10.0.0.2"]),
        ("0123456789ab", "A", ["10.0.0.2"]),
        ("web.demo", "A", ["10.0.0.2"]),
        ("web.back", "A", ["10.1.0.2"]),
        ("cache", "A", ["10.1.0.2"]),
        ("WEB.Demo", "A", ["10.0.0.2"]),
        ("web", "AAAA", []),
        ("web", "MX", []),
        ("web", "HTTPS", []),
        ("db", "AAAA", ["fd00::3"]),
        ("db", "ANY", ["10.0.0.3", "fd00::3"]),
        ("v6", "A", []),
        ("api", "AAAA", ["fd00::3", "fd00::4"]),
        ("nobody", "A", None),
        ("demo", "A", None),
        ("web.nowhere", "A", None),
        ("cache.demo", "A", None),
        ("linked", "A", ["10.9.9.9"]),
        ("linked", "AAAA", []),
        ("2.0.0.10.in-addr.arpa", "PTR", ["web.demo."]),
        ("2.0.1.10.in-addr.arpa", "PTR", ["web.back."]),
        ("9.0.0.10.in-addr.arpa", "PTR", None),
        ("0.0.10.in-addr.arpa", "PTR", None),
        ("256.0.0.10.in-addr.arpa", "PTR", None),
        ("4.0.0.0." + "0." * 24 + "0.0.d.f.ip6.arpa", "PTR", ["v6.demo."]),
        ("web", "PTR", []),
    ],
)
def test_what_a_sandbox_of_two_networks_sees(name: str, qtype: str, expected: list[str] | None) -> None:
    view = directory().view(["n1", "n2"], {"linked": "10.9.9.9"})

    assert addresses(view, name, qtype) == expected


def test_the_first_network_wins() -> None:
    assert addresses(directory().view(["n2", "n1"], {}), "web") == ["10.1.0.2"]


def test_links_come_before_networks() -> None:
    assert addresses(directory().view(["n1"], {"web": "10.7.7.7"}), "web") == ["10.7.7.7"]


def test_other_networks_are_not_seen() -> None:
    view = directory().view(["n2"], {})

    assert addresses(view, "db") is None
    assert addresses(view, "web.demo") is None
    assert addresses(view, "2.0.0.10.in-addr.arpa", "PTR") is None


def test_the_question_comes_back_as_it_was_asked() -> None:
    (answer,) = ask(directory().view(["n1"], {}), "wEb.DeMo") or []

    assert answer.q.qname.label == (b"wEb", b"DeMo")
    assert answer.rr[0].rname.label == (b"wEb", b"DeMo")


@pytest.mark.parametrize(("service", "port"), [("_8080._tcp", 8080), ("_domain._udp", 53), ("_DOMAIN._TCP", 53), ("_1._sctp", 1)])
def test_services_are_answered_with_port_target_and_its_addresses(service: str, port: int) -> None:
    answer, turned = ask(directory().view(["n1"], {}), f"{service}.Db.demo", "SRV") or []

    assert [str(rr.rdata) for rr in turned.ar] == ["fd00::3", "10.0.0.3"]
    (srv,) = answer.rr
    assert (srv.rdata.port, srv.rdata.priority, srv.rdata.weight, srv.rdata.target.label) == (port, 0, 0, (b"Db", b"demo"))
    assert [(rr.rname.label, str(rr.rdata)) for rr in answer.ar] == [((b"Db", b"demo"), "10.0.0.3"), ((b"Db", b"demo"), "fd00::3")]


@pytest.mark.parametrize("name", ["web", "_nosuchservice._tcp.web", "_65536._tcp.web", "_0._tcp.web", "_80._icmp.web", "_-1._tcp.web"])
def test_a_service_that_a_known_name_does_not_have_is_an_empty_answer(name: str) -> None:
    assert addresses(directory().view(["n1"], {}), name, "SRV") == []


@pytest.mark.parametrize("name", ["_80._tcp.nobody", "_80._tcp", "80.tcp.web"])
def test_services_of_unknown_names_are_not_ours(name: str) -> None:
    assert addresses(directory().view(["n1"], {}), name, "SRV") is None


def test_a_zone_is_not_given_away() -> None:
    (answer,) = ask(directory().view(["n1"], {}), "web", "AXFR") or []

    assert answer.header.rcode == wire.REFUSED


@pytest.mark.parametrize(("count", "expected"), [(0, 1), (1, 1), (2, 2), (16, 16), (17, 9), (200, 16)])
def test_answers_are_turned(count: int, expected: int) -> None:
    records = [bytes([number]) for number in range(count)]

    turned = answers.rotations(records)

    assert len(turned) == expected
    assert len({turn[0] for turn in turned if turn}) == (expected if count else 0)
    assert all(sorted(turn) == sorted(records) for turn in turned)


def test_two_hundred_addresses_are_cut_over_udp_and_whole_over_tcp() -> None:
    directory = Directory()
    for number in range(200):
        directory.put("n1", f"e{number}", ["many"], [f"10.0.0.{number}"], "demo")
    view = directory.view(["n1"], {})

    (cut, *_), (fitting, *_), (whole, *_) = (
        ask(view, "many") or [],
        ask(view, "many", udp_len=4096) or [],
        ask(view, "many", limit=65535) or [],
    )

    assert (cut.header.tc, len(cut.rr)) == (1, (512 - 12 - 10) // 16)
    assert (fitting.header.tc, len(fitting.rr)) == (0, 200)
    assert (whole.header.tc, len(whole.rr)) == (0, 200)


def packet(name: str, ident: int = 1) -> bytes:
    return bytes(dnslib.DNSRecord(dnslib.DNSHeader(id=ident), q=dnslib.DNSQuestion(name)).pack())


def cached(view: View, asked: bytes) -> list[str] | None:
    """What the hot path would answer."""
    give = view.cache.get(asked[2:])
    return [str(rr.rdata) for rr in dnslib.DNSRecord.parse(asked[:2] + give()).rr] if give else None


def remember(view: View, asked: bytes) -> None:
    view.remember(asked, answers.answer(view, wire.parse(asked)) or [])


def test_prebuilt_answers_take_turns_for_each_question() -> None:
    view = directory().view(["n1"], {})
    asked = bytes(dnslib.DNSRecord.question("api", "AAAA").pack())
    remember(view, asked)
    remember(view, packet("web"))

    given = []
    for ident in (b"\0\1", b"\0\2", b"\0\3"):
        given.append(cached(view, ident + asked[2:]))
        assert cached(view, packet("web")) == ["10.0.0.2"]

    assert given == [["fd00::3", "fd00::4"], ["fd00::4", "fd00::3"], ["fd00::3", "fd00::4"]]


@pytest.mark.parametrize(
    "change",
    [
        lambda directory: directory.put("n1", "e9", ["new"], ["10.0.0.9"], "demo"),
        lambda directory: directory.put("n1", "e1", ["web"], ["10.0.0.7"], "demo"),
        lambda directory: directory.drop("n1", "e1"),
        lambda directory: directory.keep_only({("n2", "e4")}),
    ],
)
def test_a_change_voids_prebuilt_answers_of_that_network_only(change: object) -> None:
    names_ = directory()
    view, other = names_.view(["n1", "n2"], {}), names_.view(["n2"], {})
    remember(view, packet("web"))
    remember(other, packet("web"))

    change(names_)  # type: ignore[operator]

    assert cached(view, packet("web")) is None
    assert cached(other, packet("web")) == ["10.1.0.2"]


def test_saying_the_same_again_voids_nothing() -> None:
    names_ = directory()
    view = names_.view(["n1"], {})
    remember(view, packet("web"))

    names_.put("n1", "e1", ["web", "www", "0123456789ab"], ["10.0.0.2"], "demo")

    assert cached(view, packet("web")) == ["10.0.0.2"]


def test_sandboxes_with_the_same_networks_share_a_view() -> None:
    names_ = directory()
    first, second = names_.view(["n1"], {}), names_.view(["n1"], {})
    assert first is second
    assert names_.view(["n1"], {"x": "10.0.0.1"}) is not first

    names_.release(["n1"], {})
    assert names_.view(["n1"], {}) is first
    names_.release(["n1"], {})
    names_.release(["n1"], {})
    assert names_.view(["n1"], {}) is not first


def test_memory_for_prebuilt_answers_is_bounded() -> None:
    """A sandbox may ask in as many ways as it likes: every type of a known name is a question of its own."""
    names_ = directory()
    views = [names_.view(["n1"], {"x": f"10.0.0.{number}"}) for number in range(6)]
    asked = packet("web")
    query = wire.parse(asked)
    most = 0
    for view in views:
        for qtype in range(6000):
            view.remember(asked[:-4] + qtype.to_bytes(2, "big") + asked[-2:], [wire.respond(query)])
            most = max(most, len(view.cache))

    assert most * names._ENTRY_OVERHEAD < names.VIEW_BUDGET
    assert sum(len(view.cache) for view in views) * names._ENTRY_OVERHEAD < names.TOTAL_BUDGET
    assert sum(len(view.cache) for view in views) > 0
    for _ in range(2):
        for view in views:
            view.forget()
    assert names_._budget.used == 0


def test_names_that_dns_cannot_hold_are_reported_and_the_others_work() -> None:
    names_ = Directory()

    assert names_.put("n1", "e1", ["ok", "a..b", "x" * 64], ["10.0.0.2"], "demo") == ["a..b", "x" * 64]
    assert addresses(names_.view(["n1"], {}), "ok") == ["10.0.0.2"]


def test_an_endpoint_without_an_address_is_known() -> None:
    names_ = Directory()
    names_.put("n1", "e1", ["silent"], ["", ""], "demo")

    assert addresses(names_.view(["n1"], {}), "silent") == []


def test_a_late_drop_does_not_forget_the_new_owner_of_an_address() -> None:
    names_ = Directory()
    names_.put("n1", "old", ["old"], ["10.0.0.2"], "demo")
    names_.put("n1", "new", ["new"], ["10.0.0.2"], "demo")
    names_.drop("n1", "old")

    assert addresses(names_.view(["n1"], {}), "2.0.0.10.in-addr.arpa", "PTR") == ["new.demo."]


hosts = st.sampled_from(["a", "b", "a.b", "c", "net"])
changes = st.tuples(
    st.sampled_from(["n1", "n2"]), st.sampled_from(["e1", "e2", "e3"]), st.none() | st.tuples(st.lists(hosts), st.integers(1, 4))
)


@given(st.lists(changes, max_size=25))
def test_tables_agree_with_a_list_of_endpoints(history: list[tuple[str, str, tuple[list[str], int] | None]]) -> None:
    names_, model = Directory(), dict[tuple[str, str], tuple[list[str], str]]()
    view = names_.view(["n1", "n2"], {})
    for network, endpoint, state in history:
        model.pop((network, endpoint), None)
        if state is None:
            names_.drop(network, endpoint)
            continue
        names_.put(network, endpoint, state[0], [f"10.0.0.{state[1]}"], "net")
        model[network, endpoint] = (state[0], f"10.0.0.{state[1]}")

    for name in ["a", "b", "a.b", "c", "net", "a.net", "net.net"]:
        in_order = [
            [address for (network, _), (called, address) in model.items() if network == wanted and name in called]
            or [
                address
                for (network, _), (called, address) in model.items()
                if network == wanted and name.removesuffix(".net") in called and name.endswith(".net")
            ]
            for wanted in ("n1", "n2")
        ]
        expected = next((sorted(found) for found in in_order if found), None)
        found = view.find(wire.encode_name(name), 4)
        assert (None if found is None else sorted(map(socket.inet_ntoa, found))) == expected
