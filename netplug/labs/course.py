"""What `lab.toml` says: hosts, cables, steps, and how each step is checked, hinted at and solved."""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path

import msgspec

from netplug.errors import Ambiguous, InvalidArgument, NotFound
from netplug.labs.checks import AnyCheck

COURSE = Path(__file__).parent / "course"
"""The labs: in a checkout a link to `labs/`, in an installed netplug a directory of its package."""


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of lab.toml; a key that is none of ours is an error."""


class Commands(_Part, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Lines for a shell on one host."""

    run: str
    on: str = ""
    """The host; empty: the lab's first."""


class Cable(_Part, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A veth pair between two hosts."""

    ends: tuple[str, str]
    """Each HOST:INTERFACE."""


class Host(_Part, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: str
    about: str = ""


class Look(Commands, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Something to try and to look at; it changes nothing that a check asks for."""

    shows: str | list[str] = ""
    """What stands in the output, letter by letter; a list where there are several things to see."""
    text: str = ""
    before: bool = False
    """To be tried before the step is done."""
    fails: bool = False
    """Whether the command ends with an error: that is what there is to see."""

    @property
    def shown(self) -> list[str]:
        return self.shows if isinstance(self.shows, list) else [self.shows] if self.shows else []


class Mistake(Commands, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A way in which the step goes wrong, and what the check says then."""

    text: str
    also: list[Commands] = []
    """What is typed elsewhere."""
    undo: list[Commands] = []
    """How to come back from it; none: the lab is built anew (`netplug lab goto`)."""
    says: str
    """What stands in the check's finding, letter by letter."""


class Step(_Part, frozen=True, forbid_unknown_fields=True, kw_only=True):
    title: str
    text: str
    hint: str
    solution: list[Commands]
    checks: list[AnyCheck]
    looks: list[Look] = []
    mistakes: list[Mistake] = []
    notice: str = ""


class Question(_Part, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """To be thought about when all steps are done, before one reads the answer."""

    asks: str
    answer: str
    looks: list[Look] = []
    """By which the answer is seen, in the lab as it is at its end."""


class Lab(_Part, frozen=True, forbid_unknown_fields=True, kw_only=True):
    title: str
    goal: str
    minutes: int
    hosts: list[Host]
    steps: list[Step]
    text: str = ""
    questions: list[Question] = []
    end: str = ""
    """What to take away."""
    cables: list[Cable] = []
    prepare: list[Commands] = []
    """What is done before the learner's first step."""
    machines: bool = False
    """Whether it is done on the Vagrantfile's machines as well: its first host is node1, its second node2."""
    needs: list[str] = []
    """Commands beside iproute2 and util-linux, each as COMMAND or COMMAND:DEBIAN-PACKAGE."""
    name: str = ""
    """The directory's: NN-words."""

    @property
    def number(self) -> int:
        return int(self.name[:2])

    def typed(self, host: str, number: int = 0) -> str:
        """Lines that are typed on a host: the preparations, or the solution of a step."""
        if host not in (known := [each.name for each in self.hosts]):
            raise NotFound(f"lab {self.name} has no host {host}: its hosts are {', '.join(known)}")
        commands = self.step(number).solution if number else self.prepare
        return "\n".join(each.run.strip() for each in commands if self.host(each.on) == host)

    def step(self, number: int) -> Step:
        if not 1 <= number <= len(self.steps):
            raise InvalidArgument(f"lab {self.name} has steps 1 to {len(self.steps)}, and no step {number}")
        return self.steps[number - 1]

    def host(self, name: str) -> str:
        """The host that commands with `on = name` run on."""
        return name or self.hosts[0].name


def read(directory: Path) -> Lab:
    """The lab in a directory; InvalidArgument where its lab.toml cannot be understood."""
    path = directory / "lab.toml"
    try:
        lab = msgspec.convert(tomllib.loads(path.read_text()), Lab)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise InvalidArgument(f"{path}: {error}") from None
    _validate(lab, path)
    return msgspec.structs.replace(lab, name=directory.name)


def _validate(lab: Lab, path: Path) -> None:
    """Every host that is spoken of is one of the lab's."""
    known = {host.name for host in lab.hosts}
    spoken = {end.partition(":")[0] for cable in lab.cables for end in cable.ends}
    spoken |= {lab.host(commands.on) for commands in lab.prepare}
    for step in lab.steps:
        spoken |= {lab.host(commands.on) for commands in (*step.solution, *step.looks, *step.mistakes)}
        spoken |= {lab.host(commands.on) for mistake in step.mistakes for commands in (*mistake.also, *mistake.undo)}
        spoken |= {place.partition("/")[0] for check in step.checks for place in check.places()}
    spoken |= {lab.host(look.on) for question in lab.questions for look in question.looks}
    if strangers := spoken - known:
        raise InvalidArgument(f"{path}: no host {', '.join(sorted(strangers))}; its hosts are {', '.join(sorted(known))}")


@functools.cache
def labs(directory: Path = COURSE) -> tuple[Lab, ...]:
    """All labs, in the order of their numbers."""
    return tuple(read(path.parent) for path in sorted(directory.glob("[0-9][0-9]-*/lab.toml")))


def find(name: str) -> Lab:
    """A lab by its name, its number, or the beginning of its name."""
    if name.isdecimal():
        found = [lab for lab in labs() if lab.number == int(name)]
    else:
        found = [lab for lab in labs() if lab.name == name] or [lab for lab in labs() if name and lab.name.startswith(name)]
    if not found:
        raise NotFound(f"No such lab: {name} ('netplug lab list' shows all)")
    if len(found) > 1:
        raise Ambiguous(f"lab {name} is not one: {', '.join(lab.name for lab in found)}")
    return found[0]
