"""The one room that touches the kernel.

`executor` applies plans; it is made of `wiring` (links, addresses and routes of one namespace in one send), `reaper` and `monitor`
(deleting links, the kernel's slow side), `firewall` (the only place with rule texts), `namespaces`, `sysctl`, `conntrack`,
`reception` and `announce`. Below them lie `links`, `addresses` and `routes` (messages) and `netlink` (the socket). A refusal of the
kernel is an `OSError` up to the boundary, where `syscalls.asked` makes it a `KernelError` that says what was asked.
"""
