"""Netplug's own programs, started as forks of a process that has imported them already.

To import a daemon takes half a second of processor time, a command line a tenth, and tests start thousands. So a nursery, a fresh Python
beside each worker of pytest, imports all of it once. It is asked for what a shell would be asked for,

    nsenter --net=/run/netns/one .venv/bin/python -m netplug.cli daemon --socket …

and what is there then is that process: its command line (as others read it in /proc), environment, namespaces, session, files, working
directory, and all that netplug does from its `main` on. Its parent is the nursery. There is one for each environment, some of which is
read when modules are imported. What is of another form is started as ever, and so is all within `plainly()`: there is the start itself
tested.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

ROOT = Path(__file__).parents[1]
PROGRAM = (sys.executable, "-m", "netplug.cli")
MOST = 4
"""Nurseries at a time."""
OWN = ("NETPLUG_HOST", "NOTIFY_SOCKET", "PYTEST_CURRENT_TEST")
"""What differs from start to start, and is read by none when it is imported."""
LONGEST = 4096
"""Bytes of a command line."""


class Place(NamedTuple):
    """Where nsenter(1) is told to run a command: paths of namespaces, and a working directory."""

    namespaces: tuple[str, ...]
    directory: str
    argv: tuple[str, ...]


def place(argv: Sequence[str]) -> Place | None:
    """None where it is no start of netplug, or enters in a way that is not known here."""
    namespaces, directory, target, rest = [], "", "self", list(argv)
    if rest[0] == "nsenter":
        rest.pop(0)
        while rest[0].startswith("-"):
            name, _, value = rest.pop(0).partition("=")
            if name == "--target":
                target = value or rest.pop(0)
            elif name in ("--net", "--uts", "--mount"):
                kind = {"--mount": "mnt"}.get(name, name.removeprefix("--"))
                namespaces.append(value or f"/proc/{target}/ns/{kind}")
            elif name == "--wd" and value:
                directory = value
            elif name != "--":
                return None
    return Place(tuple(sorted(namespaces, key=lambda path: path.endswith("/mnt"))), directory, tuple(rest)) if is_ours(rest) else None


def is_ours(argv: Sequence[str]) -> bool:
    """An engine's plugin answers before it has imported all of itself, and makes a number while it does that tells it from other daemons:
    it is started as ever."""
    if "--docker-plugin" in argv:
        return False
    return tuple(argv[: len(PROGRAM)]) == PROGRAM and sum(len(word.encode()) + 1 for word in argv) < LONGEST


class Fork:
    """A process of a nursery, in the manner of `subprocess.Popen`."""

    def __init__(self, args: Sequence[str], pid: int, pidfd: int, ended: socket.socket) -> None:
        self.args, self.pid, self.returncode = args, pid, None
        self._pidfd, self._ended = pidfd, ended

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            readable, _, _ = select.select([self._ended], [], [], timeout)
            if not readable:
                raise subprocess.TimeoutExpired(self.args, timeout)
            told = self._ended.recv(16)
            self.returncode = int(told or -signal.SIGKILL)
            self._ended.close()
            os.close(self._pidfd)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __del__(self) -> None:
        if self.returncode is None and hasattr(self, "_ended"):
            self._ended.close()
            os.close(self._pidfd)


class Nursery:
    """One process that forks. It ends with this one, or with `close`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # After the number comes room for the command lines of those that are born.
            argv = [sys.executable, "-m", "tests.nursery", str(theirs.fileno()), " " * LONGEST]
            null = subprocess.DEVNULL
            self._process = subprocess.Popen(
                argv, env=dict(environment), cwd=ROOT, stdin=null, stdout=null, pass_fds=[theirs.fileno()], start_new_session=True
            )

    def fork(self, argv: Sequence[str], place: Place, environment: Mapping[str, str], files: Sequence[int], *, session: bool) -> Fork:
        """`files`: stdin, stdout, stderr."""
        asked = {"argv": place.argv, "environment": dict(environment), "session": session, "moves": bool(place.directory)}
        ended, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, contextlib.ExitStack() as stack:
            opened = []
            for path in (place.directory or ".", *place.namespaces):
                opened.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                stack.callback(os.close, opened[-1])
            socket.send_fds(self._control, [json.dumps(asked).encode()], [theirs.fileno(), *files, *opened])
            theirs.close()
            told, fds, _, _ = socket.recv_fds(ended, 64, 1)
            if not told:
                raise RuntimeError("the nursery has ended")
        return Fork(argv, int(told), fds[0], ended)

    def close(self) -> None:
        self._control.close()
        self._process.wait()


_nurseries: OrderedDict[tuple[tuple[str, str], ...], Nursery] = OrderedDict()
_lock = threading.Lock()
_plain = 0


def _nursery(environment: Mapping[str, str]) -> Nursery:
    common = {name: value for name, value in environment.items() if name not in OWN}
    key = tuple(sorted(common.items()))
    if key not in _nurseries:
        if len(_nurseries) == MOST:
            _nurseries.popitem(last=False)[1].close()
        _nurseries[key] = Nursery(common)
    _nurseries.move_to_end(key)
    return _nurseries[key]


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Within, everything is started as users start it."""
    global _plain
    _plain += 1
    try:
        yield
    finally:
        _plain -= 1


def launch(argv: Sequence[str], **options: Any) -> Any:
    """`subprocess.Popen(argv, **options)`; a fork for what is netplug's own."""
    known = {"env", "stdin", "stdout", "stderr", "start_new_session", "pass_fds"}
    where = place(argv)
    if where is None or _plain or options.get("pass_fds") or not options.keys() <= known:
        return subprocess.Popen(argv, **options)
    with open(os.devnull, "r+b") as null:
        files = [null if options[name] == subprocess.DEVNULL else options[name] for name in ("stdin", "stdout", "stderr")]
        with _lock:
            nursery = _nursery(options["env"])
            numbers = [file.fileno() for file in files]
            return nursery.fork(argv, where, options["env"], numbers, session=options.get("start_new_session", False))


def run(argv: Sequence[str], environment: Mapping[str, str], stdin: str = "", timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run` with its output captured as text."""
    where = place(argv)
    if where is None or _plain:
        return subprocess.run(argv, capture_output=True, text=True, timeout=timeout, env=environment, input=stdin)
    with contextlib.ExitStack() as stack:
        (given, write), (read_out, out), (read_error, error) = (
            tuple(stack.enter_context(open(end, mode)) for end, mode in zip(os.pipe(), ("rb", "wb"), strict=True)) for _ in range(3)
        )
        process = launch(argv, env=environment, stdin=given, stdout=out, stderr=error)
        for file in (given, out, error):
            file.close()
        told: dict[Any, bytes] = {}
        threads = [threading.Thread(target=_write, args=(write, stdin.encode()))]
        threads += [threading.Thread(target=lambda file=file: told.update({file: file.read()})) for file in (read_out, read_error)]
        for thread in threads:
            thread.start()
        try:
            process.wait(timeout)
        finally:
            process.kill()
            for thread in threads:
                thread.join()
        return subprocess.CompletedProcess(argv, process.wait(), told[read_out].decode(), told[read_error].decode())


def _write(file: BinaryIO, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):
        file.write(data)
        file.close()


def close() -> None:
    """The nurseries end; what they have started goes on."""
    while _nurseries:
        _nurseries.popitem()[1].close()


# The nursery's own side


class Birth(NamedTuple):
    """What a new process is to be."""

    argv: list[str]
    environment: dict[str, str]
    session: bool
    moves: bool
    files: list[int]
    directory: int
    namespaces: list[int]


def serve(control: socket.socket) -> Birth | None:
    """In the nursery, until nobody can ask any more: None. In each new process: what it is to be."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    children: dict[int, tuple[int, socket.socket]] = {}
    while True:
        for number, _ in poll.poll():
            if number != control.fileno():
                pid, ended = children.pop(number)
                with contextlib.suppress(OSError), ended:
                    ended.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
                poll.unregister(number)
                os.close(number)
                continue
            asked, fds, _, _ = socket.recv_fds(control, 1 << 17, 16)
            if not asked:
                return None
            pid = os.fork()
            if pid == 0:
                for number in (control.detach(), fds[0], *children, *(ended.detach() for _, ended in children.values())):
                    os.close(number)
                return Birth(**json.loads(asked), files=fds[1:4], directory=fds[4], namespaces=fds[5:])
            ended, pidfd = socket.socket(fileno=fds[0]), os.pidfd_open(pid)
            socket.send_fds(ended, [str(pid).encode()], [pidfd])
            for number in fds[1:]:
                os.close(number)
            children[pidfd] = pid, ended
            poll.register(pidfd, select.POLLIN)


def become(birth: Birth) -> None:
    """This process is what was asked for."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if birth.session:
        os.setsid()
    for number in birth.namespaces:
        if libc.setns(number, 0):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(number)
    if birth.moves:
        os.fchdir(birth.directory)
    os.close(birth.directory)
    for number, file in enumerate(birth.files):
        os.dup2(file, number)
        os.close(file)
    # What Python knows of its own files (whether one can be sought in, say) is not true of these.
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        former = getattr(sys, name)
        buffering = 1 if name == "stderr" or os.isatty(number) else -1
        file = os.fdopen(number, mode, buffering, former.encoding, former.errors, closefd=False)
        setattr(sys, name, file)
        setattr(sys, f"__{name}__", file)
    os.environ.clear()
    os.environ.update(birth.environment)
    sys.argv = [str(ROOT / "netplug/cli/__main__.py"), *birth.argv[len(PROGRAM) :]]
    # Those who look for our processes read it; to say where it ends would take a capability that not every root has: it ends with zeros.
    begin, end = map(int, Path("/proc/self/stat").read_text().rpartition(")")[2].split()[45:47])
    line = b"".join(word.encode() + b"\0" for word in birth.argv)
    ctypes.memmove(begin, line.ljust(end - begin, b"\0"), end - begin)


def warm() -> None:
    """Import what daemons and commands import."""
    import gc
    from importlib.metadata import entry_points

    from netplug import cli
    from netplug.cli.daemon import without_authorities

    with without_authorities():
        importlib.import_module("netplug.daemon")
    for group in ("netplug.drivers", "netplug.finders", "netplug.ipam"):
        for point in entry_points(group=group):
            point.load()
    for name in ("netplug.start", "netplug.store.etcd", *(f"netplug.cli.{room}" for room in sorted(set(cli._ROOMS.values())))):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


def main() -> None:
    import atexit

    control = socket.socket(fileno=int(sys.argv[1]))
    warm()
    birth = serve(control)
    if birth is None:
        return
    code = 1
    try:
        become(birth)
        from netplug.cli import execute

        code = execute()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    # The end of an interpreter, without the taking apart of modules.
    threading._shutdown()
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
