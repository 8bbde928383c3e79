"""The null IPAM driver has nothing to give, and says so."""

from __future__ import annotations

import pytest

from netplug.addressing import AddressPools
from netplug.errors import InvalidArgument
from netplug.model import PoolConfig
from netplug_ipam.null import NullIpam


@pytest.fixture
def ipam() -> NullIpam:
    return NullIpam(AddressPools())


@pytest.mark.parametrize("wanted", [None, PoolConfig(subnet="")])
def test_there_is_no_pool_and_no_address(ipam, wanted):
    given = ipam.request_pool(wanted, ["10.0.0.0/8"], {})
    allocator = ipam.allocator(given)

    assert given == PoolConfig(subnet="")
    assert [allocator.allocate(), allocator.allocate(serial=True)] == ["", ""]
    allocator.take("10.0.0.1")
    assert list(allocator.taken()) == []
    allocator.release("10.0.0.1")
    assert allocator.capacity == 0


@pytest.mark.parametrize(
    ("wanted", "what"),
    [
        (PoolConfig(subnet="10.0.0.0/24"), "address pool"),
        (PoolConfig(subnet="", ip_range="10.0.0.0/25"), "address subpool"),
        (PoolConfig(subnet="", gateway="10.0.0.1"), "address"),
        (PoolConfig(subnet="", auxiliary={"nas": "10.0.0.1"}), "address"),
    ],
)
def test_what_is_asked_for_is_refused(ipam, wanted, what):
    with pytest.raises(InvalidArgument) as caught:
        ipam.request_pool(wanted, (), {})
    assert str(caught.value) == f"null ipam driver does not handle specific {what} requests"


def test_a_particular_address_is_refused(ipam):
    with pytest.raises(InvalidArgument):
        ipam.allocator(PoolConfig(subnet="")).allocate("10.0.0.1")
