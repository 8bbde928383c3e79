"""`python -m tests.bench.sockets FIRST COUNT ROUNDS`: what it takes at least to hold ports, a socket bound to each.

Prints the milliseconds of each round, of which the first warms up and is left out.
"""

from __future__ import annotations

import _socket
import resource
import socket
import sys
import time

_SPARE = 64
"""Descriptors for everything else."""


def held(first: int, count: int) -> float:
    """Milliseconds to open and bind them all, on every IPv4 and IPv6 address."""
    sockets = []
    started = time.perf_counter()
    for port in range(first, first + count):
        one = _socket.socket(socket.AF_INET6, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        one.bind(("::", port))
        sockets.append(one)
    elapsed = (time.perf_counter() - started) * 1000
    for one in sockets:
        one.close()
    return elapsed


if __name__ == "__main__":
    first, count, rounds = map(int, sys.argv[1:])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, count + _SPARE), hard))
    for elapsed in [held(first, count) for _ in range(rounds + 1)][1:]:
        print(f"{elapsed:.2f}")
