"""A running lab: it is started, its steps are checked, solved and gone back to, and it is stopped."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from netplug.errors import Conflict, InvalidArgument, NotFound, Unavailable
from netplug.labs import course, hosts, record
from netplug.labs.course import Commands, Lab, Step
from netplug.labs.finding import Unmet
from netplug.labs.hosts import LabFailed
from netplug.labs.places import Place
from netplug.labs.record import Record

_COMMAND_PATIENCE = 120
_ELSEWHERE = ("NETPLUG_HOST", "DOCKER_HOST", "DOCKER_CONTEXT", "ETCDCTL_ENDPOINTS")
"""Variables by which a learner's own shell may send these commands to daemons outside the lab."""
Say = Callable[[str], None]


def _silent(line: str) -> None:
    pass


class Verdict(NamedTuple):
    """Of one step; `unmet` is None where it is done."""

    number: int
    step: Step
    unmet: Unmet | None


class Session:
    """One running lab."""

    def __init__(self, lab: Lab, kept: Record) -> None:
        self.lab, self.record = lab, kept

    # Life

    @classmethod
    def start(cls, lab: Lab, say: Say = _silent) -> Session:
        """Build a lab's hosts. Nothing is left where that fails."""
        _require(lab)
        with record.locked():
            if lab.name in record.running():
                raise Conflict(f"lab {lab.name} runs already: 'netplug lab status', or 'netplug lab stop {lab.name}'")
            return cls._built(lab, say)

    @classmethod
    def _built(cls, lab: Lab, say: Say) -> Session:
        session = cls(lab, Record(lab.name))
        try:
            record.save(session.record)
            session._build(say)
        except BaseException:
            _remove(lab.name)
            raise
        return session

    def _build(self, say: Say) -> None:
        for host in self.lab.hosts:
            self.record.hosts[host.name] = hosts.make(host.name, record.directory(self.lab.name)).pid
            record.save(self.record)
        for cable in self.lab.cables:
            hosts.plug(cable, {name: self.place(name) for name in self.record.hosts})
        for commands in self.lab.prepare:
            self.type(commands, say)
        self.record.built = True
        record.save(self.record)

    @classmethod
    def of(cls, name: str = "") -> Session:
        """A running lab by (the beginning of) its name or its number; the only one where no name is given."""
        names = record.running()
        if name:
            lab = course.find(name)
            if lab.name not in names:
                raise NotFound(f"lab {lab.name} does not run: start it with 'netplug lab start {lab.name}'")
        elif not names:
            raise NotFound("no lab runs: 'netplug lab list' shows them, 'netplug lab start LAB' starts one")
        elif len(names) > 1:
            raise InvalidArgument(f"several labs run ({', '.join(names)}): say which one with --lab")
        else:
            lab = course.find(names[0])
        kept = record.load(lab.name)
        whole = kept is not None and kept.built and all(hosts.lives(pid, record.directory(lab.name)) for pid in kept.hosts.values())
        if kept is None or not whole:
            raise LabFailed(
                f"lab {lab.name} is not whole (it was being started, or a host's first process has ended): stop it and start again"
            )
        return cls(lab, kept)

    @staticmethod
    def stop(name: str = "") -> list[str]:
        """End a lab, or all; the names of those that were ended. Works for what is left of one, too."""
        with record.locked():
            names = record.running()
            chosen = [name] if name in names else [found.name for found in [course.find(name)] if found.name in names] if name else names
            if name and not chosen:
                raise NotFound(f"lab {course.find(name).name} does not run")
            for each in chosen:
                _remove(each)
            return chosen

    # Steps

    def step(self, number: int) -> Step:
        return self.lab.step(number)

    @property
    def next(self) -> int:
        """The number of the first step that was not found done yet; one more than there are when all were."""
        return self.record.done + 1

    def look(self, number: int) -> Unmet | None:
        """What a step still lacks."""
        try:
            for check in self.step(number).checks:
                check.look(self.place)
        except Unmet as unmet:
            return unmet
        return None

    def judge(self) -> Verdict:
        """Look at the next step, and note it where it is done."""
        number = self.next
        step, unmet = self.step(number), self.look(number)
        if unmet is None:
            self._reached(number)
        return Verdict(number, step, unmet)

    def check(self) -> Iterator[Verdict]:
        """Step after step from the next one on, as far as they are done, and the first that is not."""
        while self.next <= len(self.lab.steps):
            verdict = self.judge()
            yield verdict
            if verdict.unmet is not None:
                return

    def solve(self, number: int, say: Say = _silent) -> None:
        """Type a step's solution. LabFailed where a command fails: the steps before it must have been done."""
        for commands in self.step(number).solution:
            self.type(commands, say)

    def goto(self, number: int, say: Say = _silent) -> None:
        """Build the lab anew and solve it up to and with step `number` (0: as it is at the start)."""
        if number:
            self.step(number)
        with record.locked():
            _remove(self.lab.name)
            self.record = self._built(self.lab, _silent).record
        for each in range(1, number + 1):
            self.solve(each, say)
        self._reached(number)

    def _reached(self, number: int) -> None:
        self.record.done = number
        record.save(self.record)

    # Places and commands

    def place(self, name: str) -> Place:
        """HOST, HOST/NAMESPACE, HOST/@CONTAINER or HOST/%NETWORK."""
        host = name.partition("/")[0]
        if host not in self.record.hosts:
            raise NotFound(f"lab {self.lab.name} has no host {host}: its hosts are {', '.join(self.record.hosts)}")
        return Place(name, self.record.hosts[host])

    def places(self) -> list[Place]:
        """All hosts, each followed by the namespaces, containers and overlay networks on it."""
        found = []
        for name in self.record.hosts:
            host = self.place(name)
            found += [host, *(self.place(f"{name}/{inner}") for inner in (*host.namespaces(), *host.containers(), *host.networks()))]
        return found

    def type(self, commands: Commands, say: Say = _silent) -> str:
        """Give lines to a shell on a host, as the learner would; what was printed. LabFailed where one fails."""
        host = self.lab.host(commands.on)
        for line in commands.run.strip().splitlines():
            say(f"{host}# {line}")
        code, said = self.shell(host, commands.run)
        if said:
            say(said.rstrip())
        if code:
            raise LabFailed(f"on {host}, this failed with {code}:\n{commands.run.strip()}\n{said.strip()}")
        return said

    def shell(self, host: str, lines: str) -> tuple[int, str]:
        """Exit code and output of lines in a shell on a host, which ends at the first that fails."""
        with tempfile.TemporaryFile("w+") as output:  # not a pipe: a service that is started here would keep it open
            argv = self.place(host).argv("sh", "-ec", lines)
            environment = {**self.environment(self.place(host)), "LC_ALL": "C"}
            try:
                done = subprocess.run(
                    argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=_COMMAND_PATIENCE, env=environment
                )
            except subprocess.TimeoutExpired:
                raise LabFailed(f"on {host}, this took more than {_COMMAND_PATIENCE} seconds:\n{lines.strip()}") from None
            output.seek(0)
            return done.returncode, output.read()

    def environment(self, place: Place) -> dict[str, str]:
        """Of a shell at a place. `netplug` is found there also if it is not installed where the shell looks."""
        path = f"{os.environ.get('PATH', os.defpath)}:{os.path.dirname(sys.executable)}"
        kept = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
        return {**kept, hosts.MARK: str(record.directory(self.lab.name)), "LAB_PLACE": place.name, "PATH": path}


def _require(lab: Lab) -> None:
    """InvalidArgument where this cannot work: no root, or a command is missing."""
    if os.geteuid() != 0:
        raise InvalidArgument("netplug lab makes network namespaces: run it as root")
    if not Path("/proc/self/ns/net").exists():
        raise Unavailable("this kernel has no network namespaces")
    wanted = ["ip:iproute2", "nsenter:util-linux", "ping:iputils-ping", "sysctl:procps", *lab.needs]
    missing = [command.rpartition(":")[2] for command in wanted if shutil.which(command.partition(":")[0]) is None]
    if missing:
        packages = " ".join(dict.fromkeys(missing))
        raise InvalidArgument(f"lab {lab.name} needs commands that are not here: apt-get install {packages}")


def _remove(name: str) -> None:
    hosts.end(record.directory(name))
    record.forget(name)
