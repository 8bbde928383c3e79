"""`python -m netplug.resolver RUN_DIR [RESOLV_CONF]`: start the resolver process of a run directory, and return when it is there.

It goes into the background by itself (a daemon in the classic sense), so that it is nobody's child. Only one can live per run directory: it
holds a lock on RUN/resolver.lock; who comes second leaves the place to the first and is content.
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import sys

from netplug.resolver.loop import log


def main(arguments: list[str]) -> int:
    """0: a process is, or another one is about to be, reachable at RUN/resolver.sock."""
    run_dir, resolv_conf = os.path.abspath(arguments[0]), os.path.abspath((*arguments[1:], "/etc/resolv.conf")[0])
    ready, told = os.pipe()
    if os.fork():
        os.close(told)
        return 0 if os.read(ready, 1) else 1
    os.close(ready)
    os.setsid()
    os.chdir("/")
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    lock = os.open(os.path.join(run_dir, "resolver.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.write(told, b"2")
        return 0
    _raise_descriptor_limit()
    _serve(run_dir, resolv_conf, told)
    return 0


def _serve(run_dir: str, resolv_conf: str, told: int) -> None:
    from netplug.resolver.process import Process

    process = Process(run_dir, resolv_conf)
    log(f"resolver process {os.getpid()} serves {run_dir}")
    os.write(told, b"1")
    os.close(told)
    process.run()


def _raise_descriptor_limit() -> None:
    """Two descriptors per sandbox, one per question on its way."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
