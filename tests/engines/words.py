"""One command line, typed to Docker's command and to netplug's, and both answers made comparable.

A *line* is what stands behind the program's name. A *story* is a few lines in a row that leaves things as it found them, or nearly. A line
that is no plain text but a `Different` says in which parts netplug's answer is not Docker's, and why: the rest has to be the same, and the
part has to differ, so that no entry outlives its difference.

What is made equal: ids, times, the program's name, blanks between columns beside a time, whether a command has any flags, and the
sentences that Docker itself has worded anew since the version that Debian has (20.10): `NEWER`.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from netplug.cli.demo_dockerd import DOCKER
from tests.engines.dockerd import Pair
from tests.hosts import Host


class Said(NamedTuple):
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Different:
    """netplug's `code`, `out` or `err` where they are not Docker's."""

    line: str
    why: str
    code: int | None = None
    out: str | None = None
    err: str | None = None

    def beside(self, docker: Said) -> Said:
        parts = {"code": self.code, "out": self.out, "err": self.err}
        changed = {name: value for name, value in parts.items() if value is not None}
        assert changed, "what differs?"
        for name, value in changed.items():
            assert value != getattr(docker, name), f"{name} differs no more: {self.why}"
        return docker._replace(**changed)


Line: TypeAlias = str | Different
Story: TypeAlias = tuple[Line, ...]


def text(line: Line) -> str:
    """What is typed."""
    return line if isinstance(line, str) else line.line


def expected(line: Line, docker: Said) -> Said:
    """What netplug is to say, where Docker says that."""
    return docker if isinstance(line, str) else line.beside(docker)


NEWER = (
    (r"(?m)^Error: No such container: ", "Error response from daemon: No such container: "),
    (r"(?m)^Error: No such image: ([^\s:]+)$", r"Error response from daemon: No such image: \1:latest"),
    (r"(?m)^Error: No such image: ", "Error response from daemon: No such image: "),
    (r"(?m)^Error: No such network: (\S+)$", r"Error response from daemon: network \1 not found"),
    (r"\bInvalid(?= (containerPort|hostPort|ranges specified|proto|filter)\b)", "invalid"),
    (r"\bInvalid ip address:? (\S+?)(: address .*)?\.$", r"invalid IP address: \1."),
    (r"\bNo port specified: ", "no port specified: "),
    (r"(\S+) is not an ip address$", r"IP address is not correctly formatted: \1"),
    (r"\bis not whitelisted\b", "is not allowed"),
    (r"^Conflicting options: -a and -d$", "conflicting options: cannot specify both --attach and --detach"),
)
"""Sentences of Docker 20.10, and what later ones say instead: there netplug follows these."""

AROUND = (
    # containerd's name for its part; netplug has no such part.
    (r"\bfailed to create shim task: ", ""),
    # A log line of the docker command between its sentences.
    (r'(?m)^time="[^"]*" level=error .*\n', ""),
)


class Twins:
    """A host with a dockerd and one with a netplug daemon."""

    def __init__(self, docker: Pair, netplug: Host, paths: Mapping[str, str]) -> None:
        """`paths`: what a word of a line stands for."""
        self._docker, self._netplug, self._paths = docker, netplug, paths
        self._begun: dict[str, subprocess.Popen[str]] = {}

    def ahead(self, line: str) -> None:
        """Ask Docker already for what takes it long; `both` collects the answer."""
        argv, pipe = self._docker.argv(DOCKER, *self._words(line)), subprocess.PIPE
        environment = self._docker.docker_environment
        self._begun[line] = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, env=environment)

    def close(self) -> None:
        """End what was begun and never collected."""
        for process in self._begun.values():
            process.kill()
            process.communicate()

    def _words(self, line: str) -> list[str]:
        return [self._paths.get(word, word) for word in shlex.split(line)]

    def both(self, line: str) -> tuple[Said, Said]:
        """What Docker says, and what netplug says, at the same time."""
        if line not in self._begun:
            self.ahead(line)
        ours = self._netplug.netplug(*self._words(line))
        process = self._begun[line]
        out, err = process.communicate(timeout=60)
        del self._begun[line]
        return dockers(Said(process.returncode, out, err)), netplugs(Said(ours.returncode, ours.stdout, ours.stderr))


def dockers(said: Said) -> Said:
    """With the name of the program, but not that of the labels' domain, and later words."""
    out, err = (re.sub(r"(?<![\w./])docker(?![\w./])", "netplug", text) for text in (said.out, said.err))
    for pattern, replacement in (*AROUND, *NEWER):
        err = re.sub(pattern, replacement, err, flags=re.MULTILINE)
    return Said(said.code, _plain(out), _without_help(_plain(err)))


def netplugs(said: Said) -> Said:
    return Said(said.code, _plain(said.out), _without_help(_plain(said.err)))


def _plain(text: str) -> str:
    text = text.replace("\r\n", "\n").replace(" [OPTIONS]", "")
    text = re.sub(r"\b[0-9a-f]{64}\b", "<ID>", text)
    text = re.sub(r"\b[0-9a-f]{12}\b", "<id>", text)
    text = re.sub(r"\d{4}-\d\d-\d\d[T ][\d:.]+(Z| \+0000 UTC)", "<date>", text)
    text, times = re.subn(r"Less than a second|About an? (minute|hour)|\d+ (second|minute|hour)s?", "<time>", text)
    return re.sub(r" {2,}", "  ", text) if times else text


def _without_help(err: str) -> str:
    """Docker 20.10 points to the help for some errors of the daemon and not for others, as they come before or after `create`."""
    return re.sub(r"\nSee 'netplug (run|create) --help'\.$", "", err) if "Error response from daemon" in err else err
