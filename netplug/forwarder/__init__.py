"""Published ports that packets cannot reach: a process of its own that takes connections and passes them on.

Packets from ::1 cannot leave the host, and NAT does not lead from one IP version to the other. Where a port is published so that this
matters, the daemon hands the very socket that holds the port to this process, which relays TCP and UDP to the container. It is started with
the first such port and ends with the last; like the resolver it outlives the daemon, which finds sockets and connections as they were.

    tcp       connections: two sockets, bounded buffers, half-close
    udp       flows, with a time-out
    channel   the messages between daemon and process, descriptors included
    process   the process: takes the daemon's messages, keeps the relays (`python -m netplug.forwarder RUN_DIR`)
    model     what the daemon says about a relay
    client    `Forwarder`, which the daemon uses

What runs in the process imports neither msgspec nor asyncio, dataclasses or typing: they would double its memory.
"""
