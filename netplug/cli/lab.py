"""`netplug lab`: labs by hand, in namespaces of their own. They need no daemon: `netplug.labs` does it all, in this process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from netplug.cli.command import INT, Command, Failure, Group
from netplug.cli.tables import columns
from netplug.errors import NetplugError

if TYPE_CHECKING:  # imported when a command needs it, not for `netplug --help`
    from netplug.labs.session import Session, Verdict

_lab_option = click.option(
    "--lab", "name", default="", metavar="LAB", help="Which lab, where several run: its name, its beginning, or its number"
)


@click.group("lab", cls=Group)
def lab_command() -> None:
    """Learn container networking by hand: labs in namespaces of their own, each step checked"""
    # `su` leaves a user's PATH, in which `ip` and `nft` are not.
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What goes wrong is one sentence."""
    try:
        yield
    except NetplugError as error:
        raise Failure(f"netplug lab: {error}") from None
    except PermissionError as error:
        raise Failure(f"netplug lab: {error.filename} is root's: labs are run as root") from None


def _opened(name: str) -> Session:
    from netplug.labs.session import Session

    return Session.of(name)


@lab_command.command("list", cls=Command)
def list_command() -> None:
    """Show all labs"""
    from netplug.labs import course, record

    with _told():
        running = record.running()
        rows = [
            (lab.name, str(len(lab.steps)), f"{lab.minutes} min", "running" if lab.name in running else "", lab.title)
            for lab in course.labs()
        ]
    click.echo(columns([("LAB", "STEPS", "TIME", "STATE", "TITLE"), *rows]), nl=False)


@lab_command.command("start", cls=Command)
@click.argument("lab")
def start_command(lab: str) -> None:
    """Build a lab's hosts: LAB is its name, its beginning, or its number"""
    from netplug.labs import course
    from netplug.labs.session import Session

    with _told():
        session = Session.start(course.find(lab))
    click.echo(f"{session.lab.title}\n{session.lab.goal}\n")
    for host in session.lab.hosts:
        click.echo(f"  netplug lab shell {host.name}" + (f"    {host.about}" if host.about else ""))
    click.echo(f"\nThe text: {course.COURSE.resolve() / session.lab.name / 'README.md'}\n")
    _show_next(session)


def _show_next(session: Session) -> None:
    if session.next > len(session.lab.steps):
        click.echo("All steps are done. 'netplug lab diagram' draws it, 'netplug lab stop' takes it away.")
        return
    step = session.step(session.next)
    click.echo(f"Step {session.next}: {step.title}\n\n{step.text.strip()}\n\nThen 'netplug lab check'; 'netplug lab hint' helps.")


@lab_command.command("status", cls=Command)
@_lab_option
def status_command(name: str) -> None:
    """Show the running labs: hosts, and the steps that were found done"""
    from netplug.labs import record

    with _told():
        for each in [name] if name else record.running():
            session = _opened(each)
            click.echo(f"{session.lab.name}: {session.lab.title}")
            for place in session.places():
                click.echo(f"  place   {place.name}")
            for number, step in enumerate(session.lab.steps, 1):
                click.echo(
                    f"  step {number}  {'done' if number < session.next else 'next' if number == session.next else '    '}  {step.title}"
                )
    if not name and not record.running():
        click.echo("no lab runs")


@lab_command.command("check", cls=Command)
@click.argument("step", type=INT, required=False)
@click.option("--on", "host", default="", metavar="HOST", help="This very machine is HOST of the lab: look at it (with STEP and --lab)")
@_lab_option
def check_command(step: int | None, host: str, name: str) -> int:
    """Look whether the next step is done (or STEP): exits with 1 if not, and says what is missing"""
    from netplug.labs.session import Verdict

    with _told():
        if host:
            return _check_here(name, host, step)
        session = _opened(name)
        if step is not None:
            return int(not _verdict(Verdict(step, session.step(step), session.look(step))))
        verdicts = [_verdict(verdict) for verdict in session.check()]
        if all(verdicts):
            _show_next(session)
        return int(not all(verdicts))


def _check_here(name: str, host: str, number: int | None) -> int:
    from netplug.labs import course, machine
    from netplug.labs.session import Verdict

    if number is None or not name:
        raise Failure("netplug lab: on a machine of its own, say which step of which lab: netplug lab check STEP --lab LAB --on HOST")
    lab = course.find(name)
    seen = machine.look(lab, host, number)
    done = _verdict(Verdict(number, lab.step(number), seen.unmet))
    if seen.elsewhere:
        click.echo(f"that is how it looks from {host}; look from {', '.join(seen.elsewhere)} as well")
    return int(not done)


@lab_command.command("commands", cls=Command)
@click.argument("lab")
@click.argument("host", required=False)
@click.option("--step", type=INT, default=0, help="What solves this step, instead of what is prepared")
def commands_command(lab: str, host: str | None, step: int) -> None:
    """Print the commands that prepare HOST (default: the first) of a lab, as its text has them; nothing is run"""
    from netplug.labs import course

    with _told():
        found = course.find(lab)
        click.echo(found.typed(host or found.hosts[0].name, step))


def _verdict(verdict: Verdict) -> bool:
    """Print one; whether the step is done."""
    unmet = verdict.unmet
    click.echo(f"step {verdict.number}  {'not done' if unmet else 'done'}  {verdict.step.title}")
    if unmet:
        click.echo(
            f"  expected  {unmet.expected}\n  found     {unmet.found}\n  why       {unmet.why}\n\n'netplug lab hint' says what to do."
        )
    return unmet is None


@lab_command.command("hint", cls=Command)
@click.argument("step", type=INT, required=False)
@_lab_option
def hint_command(step: int | None, name: str) -> None:
    """Say how the next step (or STEP) is done, without doing it"""
    with _told():
        session = _opened(name)
        click.echo(session.step(step if step is not None else min(session.next, len(session.lab.steps))).hint)


@lab_command.command("solve", cls=Command)
@click.option("-a", "--all", "every", is_flag=True, help="Also the steps after it")
@_lab_option
def solve_command(every: bool, name: str) -> int:
    """Do the next step: its commands are printed and run"""
    with _told():
        session = _opened(name)
        for number in range(session.next, len(session.lab.steps) + 1):
            session.solve(number, click.echo)
            if not _verdict(session.judge()):
                return 1
            if not every:
                break
        _show_next(session)
    return 0


@lab_command.command("goto", cls=Command)
@click.argument("step", type=INT)
@_lab_option
def goto_command(step: int, name: str) -> None:
    """Build the lab anew as it is after STEP (0: at its start); shells in it end"""
    with _told():
        session = _opened(name)
        session.goto(step)
        _show_next(session)


@lab_command.command("shell", cls=Command, interspersed=False)
@click.argument("place", required=False)
@click.argument("command", nargs=-1)
@_lab_option
def shell_command(place: str | None, command: Sequence[str], name: str) -> None:
    """Open a shell on a host of the lab, or in a namespace there (HOST/NAME, HOST/@CONTAINER, HOST/%NETWORK); or run one COMMAND"""
    with _told():
        session = _opened(name or (_lab_of(place) if place else ""))
        where = session.place(place or session.lab.hosts[0].name)
        if not where.exists:
            there = ", ".join((*where.namespaces(), *where.containers(), *where.networks())) or "none"
            raise Failure(f"netplug lab: host {where.host} has no namespace {where.inner}: it has {there}")
        argv = where.argv(*(command or ("bash", "--rcfile", "/run/lab.rc", "-i")))
        os.execvpe(argv[0], argv, session.environment(where))


def _lab_of(place: str) -> str:
    """The one running lab that has such a host; empty where that is not one."""
    from netplug.labs import course, record

    host = place.partition("/")[0]
    having = [name for name in record.running() if host in {each.name for each in course.find(name).hosts}]
    return having[0] if len(having) == 1 else ""


@lab_command.command("diagram", cls=Command)
@click.option("--svg", metavar="FILE", default="", help="Write an SVG picture instead")
@click.option("--png", metavar="FILE", default="", help="Write a PNG picture instead")
@_lab_option
def diagram_command(svg: str, png: str, name: str) -> None:
    """Draw the lab as it is at this moment: places, interfaces, addresses, bridges, state"""
    from netplug.labs import raster, text, topology, vector

    with _told():
        session = _opened(name)
        drawn = topology.read(session.places())
    if not (svg or png):
        click.echo(text.picture(drawn), nl=False)
        return
    picture = vector.picture(drawn)
    if svg:
        _write(svg, picture.encode())
    if png:
        with _told():
            dots = raster.png(picture)
        _write(png, dots)


def _write(path: str, content: bytes) -> None:
    try:
        Path(path).write_bytes(content)
    except OSError as error:
        raise Failure(f"netplug lab: {path}: {error.strerror}") from None


@lab_command.command("stop", cls=Command)
@click.argument("lab", required=False)
def stop_command(lab: str | None) -> None:
    """End a lab (all, where none is named) and leave nothing of it"""
    from netplug.labs.session import Session

    with _told():
        for name in Session.stop(lab or ""):
            click.echo(name)
