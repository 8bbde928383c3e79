"""DNS messages, with dnslib as the oracle: it writes the queries that we read, and reads the answers that we write."""

from __future__ import annotations

import subprocess
import sys

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netplug.resolver import wire

ascii_label = st.text(st.characters(max_codepoint=127), min_size=1, max_size=63).map(str.encode)  # dnslib reads no others
labels = st.lists(ascii_label, max_size=8).filter(lambda labels: sum(map(len, labels)) + len(labels) < 255)
limits = st.integers(0, 65535)


def query(name: str = "web", qtype: str = "A", **options: int) -> bytes:
    """What a stub resolver sends."""
    record = dnslib.DNSRecord(dnslib.DNSHeader(id=0x1234, rd=1), q=dnslib.DNSQuestion(name, getattr(dnslib.QTYPE, qtype)))
    if options:
        record.add_ar(dnslib.EDNS0(**options))
    return bytes(record.pack())


@st.composite
def queries(draw: st.DrawFn) -> tuple[bytes, dnslib.DNSRecord]:
    """Any query that dnslib can write, with and without EDNS."""
    question = dnslib.DNSQuestion(dnslib.DNSLabel(tuple(draw(labels))), draw(st.integers(0, 65535)), draw(st.integers(0, 65535)))
    header = dnslib.DNSHeader(id=draw(st.integers(0, 65535)), rd=draw(st.booleans()), cd=draw(st.booleans()), ad=draw(st.booleans()))
    record = dnslib.DNSRecord(header, q=question)
    if draw(st.booleans()):
        options = [dnslib.EDNSOption(10, draw(st.binary(min_size=8, max_size=8)))] if draw(st.booleans()) else []
        record.add_ar(dnslib.EDNS0(udp_len=draw(limits), flags="do" if draw(st.booleans()) else "", opts=options))
    return bytes(record.pack()), record


@given(queries())
def test_any_query_that_dnslib_writes_is_understood(written: tuple[bytes, dnslib.DNSRecord]) -> None:
    packet, record = written

    query = wire.parse(packet)

    assert query.ident == record.header.id
    assert query.name == wire.join_labels(record.q.qname.label).lower()
    assert query.question == packet[12 : 12 + len(query.question)]
    assert (query.qtype, query.qclass) == (record.q.qtype, record.q.qclass)
    assert query.edns == bool(record.ar)
    assert query.limit == (min(max(record.ar[0].rclass, 512), 4096) if record.ar else 512)
    assert query.dnssec == bool(record.ar and record.ar[0].ttl & 0x8000)
    assert query.cacheable == (not record.ar or not record.ar[0].rdata)


@given(queries(), st.lists(st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16), max_size=300), limits)
def test_every_answer_is_read_by_dnslib_and_fits(written: tuple[bytes, dnslib.DNSRecord], addresses: list[bytes], room: int) -> None:
    packet, record = written
    query, room = wire.parse(packet), max(room, 512)

    message = wire.respond(query, [wire.address_record(address) for address in addresses], limit=room)

    answer = dnslib.DNSRecord.parse(message)
    given = [bytes(rr.rdata.data) for rr in answer.rr]
    assert len(message) <= room
    assert given == addresses[: len(given)]
    assert answer.header.tc == (len(given) < len(addresses))
    assert (answer.header.id, answer.header.qr, answer.header.ra, answer.header.rcode) == (record.header.id, 1, 1, 0)
    assert (answer.header.rd, answer.header.cd, answer.header.ad, answer.header.aa) == (record.header.rd, record.header.cd, 0, 0)
    assert answer.q == record.q
    assert answer.q.qname.label == record.q.qname.label  # case and all
    assert [rr.ttl for rr in answer.rr] == [wire.TTL] * len(given)
    assert [rr.rtype for rr in answer.ar] == [wire.OPT] * len(record.ar)


@given(st.binary(max_size=600))
def test_random_bytes_are_ignored_refused_or_understood(packet: bytes) -> None:
    check_never_crashes(packet)


@given(queries(), st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=6), st.integers(0, 300))
def test_damaged_queries_are_ignored_refused_or_understood(
    written: tuple[bytes, dnslib.DNSRecord], damage: list[tuple[int, int]], cut: int
) -> None:
    packet = bytearray(written[0])
    for position, value in damage:
        packet[position % len(packet)] = value
    check_never_crashes(bytes(packet[: cut or None]))


def check_never_crashes(packet: bytes) -> None:
    query = None
    try:
        query = wire.parse(packet)
        answer = wire.respond(query)
    except wire.Ignored:
        answer = b""
    except wire.Refused as refused:
        answer = refused.answer
    if query:
        assert answer[12:].startswith(query.question)
        assert wire.join_labels(wire.split_labels(query.name)) == query.name
    if answer:
        assert answer[:2] == packet[:2]
        assert answer[2] & 0x80
    else:
        assert len(packet) < 12 or packet[2] & 0x80


def test_answers_to_others_are_ignored() -> None:
    with pytest.raises(wire.Ignored):
        wire.parse(bytes(dnslib.DNSRecord.parse(query()).reply().pack()))
    with pytest.raises(wire.Ignored):
        wire.parse(query()[:11])


def test_an_operation_that_is_no_query_is_not_implemented() -> None:
    update = bytearray(query())
    update[2] |= 5 << 3

    with pytest.raises(wire.Refused) as caught:
        wire.parse(bytes(update))

    header = dnslib.DNSRecord.parse(caught.value.answer).header
    assert (header.id, header.opcode, header.rcode, header.q) == (0x1234, 5, wire.NOTIMP, 0)


@pytest.mark.parametrize("questions", [0, 2])
def test_other_than_one_question_is_a_format_error(questions: int) -> None:
    record = dnslib.DNSRecord(dnslib.DNSHeader(id=7), questions=[dnslib.DNSQuestion("web")] * questions)

    with pytest.raises(wire.Refused) as caught:
        wire.parse(bytes(record.pack()))

    assert dnslib.DNSRecord.parse(caught.value.answer).header.rcode == wire.FORMERR


def test_a_pointer_that_leads_to_itself_is_a_format_error() -> None:
    packet = query()[:12] + b"\xc0\x0c" + b"\0\1\0\1"

    with pytest.raises(wire.Refused) as caught:
        wire.parse(packet)

    assert caught.value.answer[3] & 15 == wire.FORMERR


def test_a_query_with_more_than_an_opt_record_is_understood() -> None:
    """TSIG and the like: rare, and read by dnslib."""
    record = dnslib.DNSRecord.parse(query("Web.demo", udp_len=1400))
    record.add_ar(dnslib.RR("web.demo", dnslib.QTYPE.TXT, rdata=dnslib.TXT("signature")))

    asked = wire.parse(bytes(record.pack()))

    assert (asked.name, asked.question[:9], asked.limit, asked.cacheable) == (b"\3web\4demo\0", b"\3Web\4demo", 1400, False)


def test_an_edns_version_from_the_future_is_refused_as_such() -> None:
    with pytest.raises(wire.Refused) as caught:
        wire.parse(query(version=1))

    answer = dnslib.DNSRecord.parse(caught.value.answer)
    assert answer.ar[0].ttl >> 24 << 4 | answer.header.rcode == wire.BADVERS


@given(labels)
def test_labels_survive_the_wire(labels: list[bytes]) -> None:
    assert wire.split_labels(wire.join_labels(labels)) == labels


@pytest.mark.parametrize("name", ["", "a..b", ".a", "x" * 64, ".".join(["x" * 63] * 4)])
def test_names_that_dns_cannot_hold(name: str) -> None:
    with pytest.raises(ValueError, match="DNS"):
        wire.encode_name(name)


@given(st.lists(st.binary(max_size=700), max_size=5), st.integers(1, 9))
def test_frames_survive_being_cut_anywhere(messages: list[bytes], step: int) -> None:
    stream = b"".join(map(wire.frame, messages))
    buffer, received = bytearray(), []
    for start in range(0, len(stream), step):
        buffer += stream[start : start + step]
        while (message := wire.take_frame(buffer)) is not None:
            received.append(message)

    assert received == messages


def test_the_process_imports_nothing_heavy() -> None:
    """Each of these would cost it megabytes, on every host."""
    heavy = {"asyncio", "dataclasses", "dnslib", "logging", "msgspec", "subprocess", "typing", "ctypes", "traceback"}
    code = "import sys, netplug.resolver.process, netplug.resolver.__main__; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, timeout=20).stdout

    assert heavy & set(loaded.split()) == set()
