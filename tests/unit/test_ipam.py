"""The default IPAM driver: pools, addresses, and the sentences of its refusals."""

from __future__ import annotations

import hashlib
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netplug.addressing import AddressPools
from netplug.errors import AddressesExhausted, AddressInUse, AddressOutOfRange, Forbidden, InvalidArgument, PoolOverlap, PoolsExhausted
from netplug.model import PoolConfig
from netplug_ipam.block import parse_block
from netplug_ipam.default import DefaultIpam
from netplug_ipam.pools import unique_local


@pytest.fixture
def ipam() -> DefaultIpam:
    return DefaultIpam(AddressPools())


def pool(subnet: str, ip_range: str = "", gateway: str = "", **auxiliary: str) -> PoolConfig:
    return PoolConfig(subnet=subnet, ip_range=ip_range, gateway=gateway, auxiliary=auxiliary)


class TestPredefinedPools:
    def test_they_are_docker_s_in_docker_s_order(self, ipam):
        expected = [f"172.{number}.0.0/16" for number in range(17, 32)] + [f"192.168.{number}.0/20" for number in range(0, 256, 16)]
        given = []
        for _ in expected:
            given.append(ipam.request_pool(None, given, {}).subnet)

        assert given == expected
        with pytest.raises(PoolsExhausted) as caught:
            ipam.request_pool(None, given, {})
        assert str(caught.value) == (
            "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network"
        )

    def test_global_networks_are_cut_from_10(self, ipam):
        assert ipam.request_pool(None, ["10.0.0.0/24", "10.0.2.0/24"], {}, "global") == pool("10.0.1.0/24", gateway="10.0.1.1")

    def test_what_overlaps_is_passed_over_also_where_host_bits_are_set(self):
        ipam = DefaultIpam(AddressPools(local=(("192.168.0.0/16", 24),)))
        taken = ["192.168.0.0/24", "192.168.1.0/24", "192.168.2.0/23", "192.168.4.3/30"]
        assert ipam.request_pool(None, taken, {}) == pool("192.168.5.0/24", gateway="192.168.5.1")

    def test_a_wide_route_hides_the_pools_below_it_and_a_narrow_one_its_own(self, ipam):
        assert ipam.request_pool(None, ["172.16.0.0/12"], {}).subnet == "192.168.0.0/20"
        assert ipam.request_pool(None, ["172.17.255.255/32"], {}).subnet == "172.18.0.0/16"
        assert ipam.request_pool(None, ["2001:db8::/32", "0.0.0.0/2"], {}).subnet == "172.17.0.0/16"

    def test_a_pool_without_subnet_is_a_predefined_one(self, ipam):
        assert ipam.request_pool(pool(""), (), {}) == pool("172.17.0.0/16", gateway="172.17.0.1")

    def test_ipv6_pools_may_be_configured_and_ipv4_keeps_its_defaults(self):
        ipam = DefaultIpam(AddressPools(local=(("fd00:0:0:ff00::/56", 64),)))
        taken = ["fd00:0:0:ff00::/63"]
        assert ipam.request_pool(None, taken, {}, family=6) == pool("fd00:0:0:ff02::/64", gateway="fd00:0:0:ff02::1")
        assert ipam.request_pool(None, taken, {}).subnet == "172.17.0.0/16"

    def test_each_ip_version_has_pools_of_its_own(self):
        ipam = DefaultIpam(AddressPools(local=(("fd00::/64", 64), ("10.0.0.0/24", 24))))
        assert ipam.request_pool(None, (), {}).subnet == "10.0.0.0/24"
        assert ipam.request_pool(None, (), {}, family=6).subnet == "fd00::/64"
        with pytest.raises(PoolsExhausted) as caught:
            ipam.request_pool(None, ["fd00::1/128"], {}, family=6)
        assert str(caught.value) == (
            "could not find an available, non-overlapping IPv6 address pool among the defaults to assign to the network"
        )

    def test_without_a_gateway_its_address_is_free(self, ipam):
        assert ipam.request_pool(pool("10.1.0.0/24"), (), {}, gateway=False) == pool("10.1.0.0/24")
        assert ipam.allocator(pool("10.1.0.0/24")).allocate() == "10.1.0.1"
        assert ipam.request_pool(pool("10.1.0.0/24", gateway="10.1.0.9"), (), {}, gateway=False).gateway == "10.1.0.9"

    @pytest.mark.parametrize(
        ("base", "length", "sentence"),
        [
            ("10.0.0.0", 24, "invalid CIDR address: 10.0.0.0"),
            ("10.0.0.0/16", 8, "invalid address pool 10.0.0.0/16: subnets of size 8 do not fit into it"),
            ("10.0.0.0/16", 33, "invalid address pool 10.0.0.0/16: subnets of size 33 do not fit into it"),
        ],
    )
    def test_impossible_ones_are_refused(self, base, length, sentence):
        with pytest.raises(InvalidArgument) as caught:
            DefaultIpam(AddressPools(local=((base, length),)))
        assert str(caught.value) == sentence

    @given(
        base=st.integers(8, 20),
        cut=st.integers(0, 8),
        taken=st.lists(st.tuples(st.integers(0, 2**24 - 1), st.integers(10, 32)), max_size=30),
    )
    def test_what_is_given_is_the_first_that_overlaps_nothing(self, base, cut, taken):
        """Against the plain way: try one subnet after the other."""
        ipam = DefaultIpam(AddressPools(local=((f"10.0.0.0/{base}", base + cut),)))
        blocks = [ipaddress.ip_network((10 << 24 | number, prefix), strict=False) for number, prefix in taken]
        subnets = ipaddress.ip_network(f"10.0.0.0/{base}").subnets(new_prefix=base + cut)
        expected = next((str(subnet) for subnet in subnets if not any(subnet.overlaps(block) for block in blocks)), None)

        try:
            found = ipam.request_pool(None, map(str, blocks), {}).subnet
        except PoolsExhausted:
            found = None

        assert found == expected


class TestUniqueLocalPools:
    """RFC 4193: fd00::/8, a global id of 40 bits that is this host's, and /64s."""

    def test_it_is_made_as_docker_makes_it(self):
        """The 40 low bits of the first eight bytes of SHA-256, behind fd."""
        hashed = hashlib.sha256(b"this host").digest()[:8][-5:]
        expected = ipaddress.ip_network((b"\xfd" + hashed + bytes(10), 48))
        assert unique_local("this host") == (str(expected), 64)

    @given(seed=st.text(max_size=40), networks=st.integers(1, 5))
    def test_it_is_stable_and_gives_one_64_after_the_other(self, seed, networks):
        base = ipaddress.ip_network(unique_local(seed)[0])
        assert base.prefixlen == 48
        assert base.subnet_of(ipaddress.ip_network("fd00::/8"))
        given = []
        for number in range(networks):
            found = DefaultIpam(AddressPools(seed=seed)).request_pool(None, given, {}, family=6)
            subnet = ipaddress.ip_network((int(base.network_address) + (number << 64), 64))
            assert found == pool(str(subnet), gateway=str(subnet[1]))
            given.append(found.subnet)

    @given(seed=st.text(max_size=40), taken=st.lists(st.tuples(st.integers(0, 255), st.integers(58, 128)), max_size=20))
    def test_it_passes_over_what_overlaps(self, seed, taken):
        base = ipaddress.ip_network(unique_local(seed)[0])
        blocks = [ipaddress.ip_network((int(base.network_address) + (number << 64), prefix), strict=False) for number, prefix in taken]
        expected = next(subnet for subnet in base.subnets(new_prefix=64) if not any(subnet.overlaps(block) for block in blocks))
        assert DefaultIpam(AddressPools(seed=seed)).request_pool(None, map(str, blocks), {}, family=6).subnet == str(expected)

    def test_hosts_differ(self):
        assert len({unique_local(f"host {number}") for number in range(100)}) == 100

    def test_a_route_to_all_of_it_leaves_nothing(self):
        with pytest.raises(PoolsExhausted, match="IPv6 address pool"):
            DefaultIpam(AddressPools()).request_pool(None, ["fd00::/8"], {}, family=6)


class TestWantedPools:
    @pytest.mark.parametrize(
        ("wanted", "gateway"),
        [
            (pool("10.1.0.0/24"), "10.1.0.1"),
            (pool("172.28.0.0/16", "172.28.5.0/24"), "172.28.5.0"),
            (pool("172.28.0.0/16", "172.28.0.0/24"), "172.28.0.1"),
            (pool("172.28.0.0/16", "172.28.5.0/24", "172.28.5.254"), "172.28.5.254"),
            (pool("172.28.0.0/16", "172.28.5.0/24", "172.28.9.9"), "172.28.9.9"),
            (pool("10.1.0.0/24", router="10.1.0.2"), "10.1.0.1"),
            (pool("10.1.0.0/24", gateway="10.1.0.9", router="10.1.0.1"), "10.1.0.9"),
            (pool("10.1.0.2/31"), "10.1.0.2"),
            (pool("10.1.0.2/32"), "10.1.0.2"),
            (pool("fd00::/64"), "fd00::1"),
            (pool("fd00::/64", "fd00::1:0/112"), "fd00::1:0"),
            (pool("fd00::2/127"), "fd00::2"),
            (pool("fd00::2/128"), "fd00::2"),
        ],
    )
    def test_the_gateway_is_the_one_given_or_the_first_free(self, ipam, wanted, gateway):
        given = ipam.request_pool(wanted, (), {})
        assert given == PoolConfig(subnet=wanted.subnet, ip_range=wanted.ip_range, gateway=gateway, auxiliary=wanted.auxiliary)

    def test_text_becomes_canonical(self, ipam):
        given = ipam.request_pool(pool("2001:DB8:0::/64", "2001:DB8::1:0/112", "2001:DB8::0:9", nas="2001:DB8::A"), (), {})
        assert given == pool("2001:db8::/64", "2001:db8::1:0/112", "2001:db8::9", nas="2001:db8::a")

    @pytest.mark.parametrize(
        ("wanted", "sentence"),
        [
            (pool("x"), "invalid CIDR address: x"),
            (pool("10.1.0.0"), "invalid CIDR address: 10.1.0.0"),
            (pool("10.1.0.0/33"), "invalid CIDR address: 10.1.0.0/33"),
            (pool("10.1.0.0/255.255.255.0"), "invalid CIDR address: 10.1.0.0/255.255.255.0"),
            (pool("10.1.0.0/-1"), "invalid CIDR address: 10.1.0.0/-1"),
            (pool("fe80::1%eth0/64"), "invalid CIDR address: fe80::1%eth0/64"),
            (pool("10.0.0.1/24"), "invalid network config: invalid subnet 10.0.0.1/24: it should be 10.0.0.0/24"),
            (pool("10.1.0.0/16", "10.1.5.7/24"), "invalid network config: invalid ip-range 10.1.5.7/24: it should be 10.1.5.0/24"),
            (pool("10.1.0.0/24", "10.2.0.0/25"), "no matching subnet for range 10.2.0.0/25"),
            (pool("10.1.0.0/24", "10.0.0.0/8"), "no matching subnet for range 10.0.0.0/8"),
            (pool("10.1.0.0/24", "y"), "invalid CIDR address: y"),
            (pool("10.1.0.0/24", gateway="10.2.0.1"), "no matching subnet for gateway 10.2.0.1"),
            (pool("10.1.0.0/24", gateway="zz"), "no matching subnet for gateway zz"),
            (pool("10.1.0.0/24", gateway="fd00::1"), "no matching subnet for gateway fd00::1"),
            (pool("10.1.0.0/24", nas="10.2.0.1"), "no matching subnet for aux-address 10.2.0.1"),
            (pool("::ffff:0:0/96"), "'::ffff:0:0/96' is not a valid IPv6 subnet"),
            (pool("fe80::/80"), "'fe80::/80' clashes with the Link-Local prefix 'fe80::/64'"),
            (pool("fd00::1/64"), "invalid network config: invalid subnet fd00::1/64: it should be fd00::/64"),
            (pool("fd00::/64", gateway="fd01::1"), "no matching subnet for gateway fd01::1"),
            (pool("fd00::/64", "10.0.0.0/24"), "no matching subnet for range 10.0.0.0/24"),
            (pool("fd00::/64", nas="10.0.0.1"), "no matching subnet for aux-address 10.0.0.1"),
            (pool("", "10.1.0.0/24"), "every ip-range or gateway must have a corresponding subnet"),
            (pool("", gateway="10.1.0.1"), "every ip-range or gateway must have a corresponding subnet"),
            (pool("", nas="10.1.0.1"), "no matching subnet for aux-address 10.1.0.1"),
        ],
    )
    def test_nonsense_is_refused(self, ipam, wanted, sentence):
        with pytest.raises(InvalidArgument) as caught:
            ipam.request_pool(wanted, (), {})
        assert str(caught.value) == sentence

    @pytest.mark.parametrize(
        ("wanted", "sentence"),
        [
            (pool("10.1.0.0/24", gateway="10.1.0.0"), "failed to allocate gateway (10.1.0.0): Address already in use"),
            (pool("10.1.0.0/24", nas="10.1.0.255"), "failed to allocate secondary ip address (nas:10.1.0.255): Address already in use"),
            (pool("10.1.0.0/24", nas="10.1.0.1"), "failed to allocate secondary ip address (nas:10.1.0.1): Address already in use"),
            (pool("fd00::/64", nas="fd00::1"), "failed to allocate secondary ip address (nas:fd00::1): Address already in use"),
            (
                pool("10.1.0.0/24", gateway="10.1.0.9", nas="10.1.0.9"),
                "failed to allocate secondary ip address (nas:10.1.0.9): Address already in use",
            ),
        ],
    )
    def test_addresses_that_cannot_be_had_are_refused(self, ipam, wanted, sentence):
        with pytest.raises(Forbidden) as caught:
            ipam.request_pool(wanted, (), {})
        assert str(caught.value) == sentence

    @pytest.mark.parametrize("taken", ["172.28.0.0/16", "172.28.7.0/24", "172.16.0.0/12", "172.28.255.255/32"])
    def test_overlaps_are_refused(self, ipam, taken):
        with pytest.raises(PoolOverlap) as caught:
            ipam.request_pool(pool("172.28.0.0/16"), ["10.0.0.0/8", taken], {})
        assert str(caught.value) == "Pool overlaps with other one on this address space"

    def test_neighbours_do_not_overlap(self, ipam):
        taken = ["10.1.0.0/24", "10.1.2.0/24", "2001:db8::/32"]
        assert ipam.request_pool(pool("10.1.1.0/24"), taken, {}).subnet == "10.1.1.0/24"


class TestAddresses:
    def test_containers_get_the_first_free_ones_of_the_range(self, ipam):
        allocator = ipam.allocator(ipam.request_pool(pool("172.28.0.0/16", "172.28.5.0/24", "172.28.5.254"), (), {}))

        assert [allocator.allocate() for _ in range(2)] == ["172.28.5.0", "172.28.5.1"]
        rest = [allocator.allocate() for _ in range(253)]
        assert rest[-1] == "172.28.5.255"
        assert "172.28.5.254" not in rest
        with pytest.raises(AddressesExhausted) as caught:
            allocator.allocate()
        assert str(caught.value) == "no available addresses in pool 172.28.0.0/16 (range 172.28.5.0/24)"

    def test_serial_goes_on_where_it_stood(self, ipam):
        allocator = ipam.allocator(pool("10.0.0.0/8", "10.2.2.0/24"))
        allocator.take("10.2.2.1")
        given = [allocator.allocate(serial=True) for _ in range(2)]
        allocator.release("10.2.2.0")
        given.append(allocator.allocate(serial=True))
        allocator.release("10.2.2.1")
        given.append(allocator.allocate(serial=True))

        assert given == ["10.2.2.0", "10.2.2.2", "10.2.2.3", "10.2.2.4"]

    def test_serial_comes_round_to_what_was_freed(self, ipam):
        allocator = ipam.allocator(pool("10.1.0.0/29"))
        given = [allocator.allocate(serial=True) for _ in range(6)]
        allocator.release("10.1.0.3")

        assert given == [f"10.1.0.{number}" for number in range(1, 7)]
        assert allocator.allocate(serial=True) == "10.1.0.3"

    def test_a_freed_address_is_given_again_first(self, ipam):
        allocator = ipam.allocator(pool("10.1.0.0/24", gateway="10.1.0.1"))
        assert [allocator.allocate() for _ in range(3)] == ["10.1.0.2", "10.1.0.3", "10.1.0.4"]
        allocator.release("10.1.0.3")
        assert [allocator.allocate() for _ in range(2)] == ["10.1.0.3", "10.1.0.5"]

    @pytest.mark.parametrize(
        ("subnet", "addresses"),
        [
            ("192.168.0.2/31", ["192.168.0.2", "192.168.0.3"]),
            ("192.168.0.7/32", ["192.168.0.7"]),
            ("192.168.0.4/30", ["192.168.0.5", "192.168.0.6"]),
            ("fd00::4/126", ["fd00::5", "fd00::6", "fd00::7"]),
        ],
    )
    def test_small_pools_give_all_they_have(self, ipam, subnet, addresses):
        allocator = ipam.allocator(pool(subnet))
        assert allocator.capacity == len(addresses)
        assert [allocator.allocate() for _ in addresses] == addresses
        with pytest.raises(AddressesExhausted) as caught:
            allocator.allocate()
        assert str(caught.value) == f"no available addresses in pool {subnet}"

    def test_a_particular_address_may_lie_outside_the_range(self, ipam):
        allocator = ipam.allocator(pool("172.28.0.0/16", "172.28.5.0/24", "172.28.5.254"))
        assert allocator.allocate("172.28.9.9") == "172.28.9.9"
        assert allocator.allocate() == "172.28.5.0"

    def test_a_taken_address_is_refused(self, ipam):
        allocator = ipam.allocator(pool("10.1.0.0/24", gateway="10.1.0.1", nas="10.1.0.9"))
        allocator.allocate("10.1.0.7")
        for address in ("10.1.0.7", "10.1.0.1", "10.1.0.9", "10.1.0.0", "10.1.0.255"):
            with pytest.raises(AddressInUse, match=f"Address already in use: {address}"):
                allocator.allocate(address)

    @pytest.mark.parametrize("address", ["10.2.0.1", "fd00::1", "10.0.255.255"])
    def test_an_address_outside_the_subnet_is_refused(self, ipam, address):
        allocator = ipam.allocator(pool("10.1.0.0/24"))
        with pytest.raises(AddressOutOfRange, match="Requested address out of range"):
            allocator.allocate(address)
        with pytest.raises(AddressOutOfRange):
            allocator.take(address)
        allocator.release(address)

    def test_text_that_is_no_address_is_refused(self, ipam):
        allocator = ipam.allocator(pool("10.1.0.0/24"))
        with pytest.raises(InvalidArgument, match=r"^invalid IPv4 address: 10\.1\.0$"):
            allocator.allocate("10.1.0")
        with pytest.raises(InvalidArgument, match=r"^invalid IPv6 address: fe80::1%eth0$"):
            allocator.allocate("fe80::1%eth0")

    def test_what_the_pool_keeps_for_itself_is_never_freed(self, ipam):
        allocator = ipam.allocator(pool("10.1.0.0/29", gateway="10.1.0.1", nas="10.1.0.2"))
        reserved = ["10.1.0.0", "10.1.0.1", "10.1.0.2", "10.1.0.7"]
        for address in reserved:
            allocator.release(address)
        assert list(allocator.taken()) == reserved
        assert allocator.allocate() == "10.1.0.3"

    @pytest.mark.parametrize(
        ("config", "capacity"),
        [
            (pool("10.1.0.0/24"), 254),
            (pool("10.1.0.0/24", gateway="10.1.0.1", nas="10.1.0.9"), 252),
            (pool("10.1.0.0/24", gateway="10.1.0.1", nas="10.1.0.1"), 253),
            (pool("172.28.0.0/16", "172.28.5.0/24", "172.28.5.254"), 255),
            (pool("172.28.0.0/16", "172.28.5.0/24", "172.28.0.1"), 256),
            (pool("172.28.0.0/16", "172.28.0.0/24", "172.28.0.1"), 254),
            (pool("10.1.0.2/32", gateway="10.1.0.2"), 0),
            (pool("fd00::/64", gateway="fd00::1"), 2**64 - 2),
        ],
    )
    def test_capacity_is_what_containers_can_get(self, ipam, config, capacity):
        assert ipam.allocator(config).capacity == capacity

    def test_addresses_of_a_vast_pool(self, ipam):
        allocator = ipam.allocator(pool("fd00::/8"))
        assert allocator.allocate() == "fd00::1"
        assert allocator.allocate("fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff") == "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
        assert list(allocator.taken()) == ["fd00::", "fd00::1", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]


def test_blocks_overlap_as_ipaddress_says():
    blocks = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "11.0.0.0/8", "0.0.0.0/0", "::/0", "fd00::/8"]
    for one in blocks:
        for other in blocks:
            left, right = ipaddress.ip_network(one), ipaddress.ip_network(other)
            assert parse_block(one).overlaps(parse_block(other)) == (left.version == right.version and left.overlaps(right))
            assert parse_block(one).covers(parse_block(other)) == (left.version == right.version and right.subnet_of(left))
