"""An allocator, whatever is done to it, against a plain set of addresses."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from netplug.addressing import AddressPools
from netplug.errors import AddressesExhausted, AddressInUse
from netplug.model import PoolConfig
from netplug_ipam.default import DefaultIpam

IPAM = DefaultIpam(AddressPools())
POOLS = st.sampled_from(
    [
        PoolConfig(subnet="10.1.0.0/28"),
        PoolConfig(subnet="10.1.0.0/26", ip_range="10.1.0.8/29"),
        PoolConfig(subnet="10.1.0.0/27", ip_range="10.1.0.16/28", gateway="10.1.0.20", auxiliary={"nas": "10.1.0.21", "out": "10.1.0.3"}),
        PoolConfig(subnet="10.1.0.6/31"),
        PoolConfig(subnet="10.1.0.7/32"),
        PoolConfig(subnet="fd00::/124"),
    ]
)


class AllocatorMachine(RuleBasedStateMachine):
    """The model: the addresses of subnet and range in order, the reserved and the taken ones, and where serial stands."""

    @initialize(wanted=POOLS, choose=st.booleans())
    def begin(self, wanted, choose):
        pool = IPAM.request_pool(wanted, (), {}) if choose else wanted
        self.allocator = IPAM.allocator(pool)
        self.subnet = [str(address) for address in ip_network(pool.subnet)]
        self.range = [str(address) for address in ip_network(pool.ip_range or pool.subnet)]
        ends = {self.subnet[0], self.subnet[-1]} if ":" not in pool.subnet else {self.subnet[0]}
        self.reserved = {address for address in (pool.gateway, *pool.auxiliary.values()) if address}
        self.reserved |= ends if len(self.subnet) > 2 else set()
        self.taken = set(self.reserved)
        self.last = -1
        assert self.allocator.capacity == len(set(self.range) - self.reserved)

    @rule(serial=st.booleans())
    def allocate(self, serial):
        turn = self.range[self.last + 1 :] + self.range if serial else self.range
        expected = next((address for address in turn if address not in self.taken), None)
        if expected is None:
            with pytest.raises(AddressesExhausted):
                self.allocator.allocate(serial=serial)
            return
        assert self.allocator.allocate(serial=serial) == expected
        self.taken.add(expected)
        self.last = self.range.index(expected)

    @rule(data=st.data())
    def allocate_a_particular_one(self, data):
        address = data.draw(st.sampled_from(self.subnet))
        if address in self.taken:
            with pytest.raises(AddressInUse):
                self.allocator.allocate(address)
            return
        assert self.allocator.allocate(address) == address
        self.taken.add(address)

    @rule(data=st.data())
    def take(self, data):
        address = data.draw(st.sampled_from(self.subnet))
        self.allocator.take(address)
        self.taken.add(address)

    @rule(data=st.data())
    def release(self, data):
        address = data.draw(st.sampled_from(self.subnet))
        self.allocator.release(address)
        if address not in self.reserved:
            self.taken.discard(address)

    @precondition(lambda self: len(self.taken) > len(self.reserved))
    @rule()
    def release_everything(self):
        for address in self.subnet:
            self.allocator.release(address)
        self.taken = set(self.reserved)

    @invariant()
    def the_same_addresses_are_taken(self):
        assert list(self.allocator.taken()) == sorted(self.taken, key=ip_address)


AllocatorMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAllocator = AllocatorMachine.TestCase
