"""Names at 127.0.0.11: a process of its own that outlives the daemon.

The daemon opens a UDP and a TCP socket in each sandbox and hands them over (SCM_RIGHTS) together with the names; from then on the
process answers by itself, through a kill -9 or an upgrade of the daemon. Module by module, from pure to impure:

    wire      DNS messages: what a query asks, how an answer is laid out
    names     who is called what: tables per network, views per set of networks, the cache of prebuilt answers
    answers   a view and a query -> messages
    loop      epoll, and the log
    server    the sandbox's sockets: UDP drained in bursts, TCP connections
    forward   everybody else's names: asked of upstream servers
    channel   the messages between daemon and process, descriptors included
    process   the process: takes the daemon's messages, keeps the state (`python -m netplug.resolver RUN_DIR`)
    model     what the daemon says about names
    client    `Resolver`, which the daemon uses

What runs in the process imports neither msgspec nor asyncio, dataclasses or typing: they would double its memory.
"""
