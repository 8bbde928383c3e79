"""`python -m netplug.forwarder RUN_DIR`: start the forwarder process of a run directory, and return when it is there.

It goes into the background by itself (a daemon in the classic sense), so that it is nobody's child. Only one can live per run directory: it
holds a lock on RUN/forwarder.lock; who comes second leaves the place to the first and is content.
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import sys


def main(arguments: list[str]) -> int:
    """0: a process is, or another one is about to be, reachable at RUN/forwarder.sock."""
    run_dir = os.path.abspath(arguments[0])
    ready, told = os.pipe()
    if os.fork():
        os.close(told)
        return 0 if os.read(ready, 1) else 1
    os.close(ready)
    os.setsid()
    os.chdir("/")
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    lock = os.open(os.path.join(run_dir, "forwarder.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.write(told, b"2")
        return 0
    # One descriptor per port, two per connection.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    _serve(run_dir, told)
    return 0


def _serve(run_dir: str, told: int) -> None:
    from netplug.forwarder.process import Process

    process = Process(run_dir)
    os.write(told, b"1")
    os.close(told)
    process.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
