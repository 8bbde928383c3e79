"""The built-in IPAM drivers: pure tables, nothing stored, nothing asked of the kernel.

`default` cuts subnets out of predefined pools and hands out addresses, `null` has none to give. `block` holds a CIDR as numbers,
`bitmap` a sparse set of bits, `pools` cuts subnets, `requests` checks what a user asked for, `allocator` gives the addresses of one
pool. Nothing here is IPv4 only: an IPv6 /64 is a block like any other, and costs memory only for the addresses that are taken.
"""
