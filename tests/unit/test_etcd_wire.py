"""Our encoding of etcd's transactions, read by the client library."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netplug.store import etcd_wire as wire
from netplug.store.etcd_client import pb

KEYS = st.binary(min_size=1, max_size=300)
NUMBERS = st.integers(0, 2**63 - 1)


def operation(encoded: bytes):
    return pb.RequestOp.FromString(encoded)


@given(KEYS, NUMBERS, st.binary(max_size=40))
def test_compares(key: bytes, number: int, end: bytes):
    for target, field in ((wire.VERSION, "version"), (wire.MOD, "mod_revision")):
        for result in (wire.EQUAL, wire.GREATER):
            found = pb.Compare.FromString(wire.compare(key, target, result, number, end))
            assert found == pb.Compare(key=key, target=target, result=result, range_end=end, **{field: number})
            assert found.WhichOneof("target_union") == field


@given(KEYS, st.binary(max_size=40_000), NUMBERS)
def test_writes(key: bytes, value: bytes, lease: int):
    assert operation(wire.put(key, value, lease)) == pb.RequestOp(request_put=pb.PutRequest(key=key, value=value, lease=lease))
    assert operation(wire.delete(key)) == pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key))


@given(KEYS, KEYS, st.booleans())
def test_reads(key: bytes, end: bytes, keys_only: bool):
    assert operation(wire.read(key, keys_only=keys_only)) == pb.RequestOp(request_range=pb.RangeRequest(key=key, keys_only=keys_only))
    one = pb.RangeRequest(key=key, range_end=end, keys_only=True, limit=1)
    assert operation(wire.read_one(key, end)) == pb.RequestOp(request_range=one)


@pytest.mark.parametrize("count", [0, 1, 100])
def test_transactions(count: int):
    """Within one another, too; with more bytes than two of a length's can say."""
    compares = [wire.compare(b"/%d" % one, wire.MOD, wire.EQUAL, one) for one in range(count)]
    inner = wire.transaction(
        compares, [wire.put(b"/%d" % one, b"x" * 1000) for one in range(count)], [wire.read(b"/%d" % one) for one in range(count)]
    )
    expected = pb.TxnRequest(
        compare=[pb.Compare(key=b"/%d" % one, target=wire.MOD, mod_revision=one) for one in range(count)],
        success=[pb.RequestOp(request_put=pb.PutRequest(key=b"/%d" % one, value=b"x" * 1000)) for one in range(count)],
        failure=[pb.RequestOp(request_range=pb.RangeRequest(key=b"/%d" % one)) for one in range(count)],
    )
    assert pb.TxnRequest.FromString(inner) == expected
    outer = wire.transaction((), [wire.nested(inner)] * 2)
    assert pb.TxnRequest.FromString(outer) == pb.TxnRequest(success=[pb.RequestOp(request_txn=expected)] * 2)


def test_names_are_etcd_s():
    assert (wire.VERSION, wire.MOD) == (pb.Compare.VERSION, pb.Compare.MOD)
    assert (wire.EQUAL, wire.GREATER) == (pb.Compare.EQUAL, pb.Compare.GREATER)
