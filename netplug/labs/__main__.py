"""`python -m netplug.labs [LAB…]`: run labs from start to end, each step checked before and after, and print a table of steps and seconds.

`--write` also writes README.md and lab.svg of each anew: the text from lab.toml, the picture from the kernel at the lab's end.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from netplug.errors import NetplugError
from netplug.labs import course, readme, topology, vector
from netplug.labs.course import Lab
from netplug.labs.session import Session

_Row = tuple[str, str, float, str]
"""Lab, step, seconds, and what went wrong."""


def play(lab: Lab, picture: Path | None = None) -> Iterator[_Row]:
    """A row for the start, for each step, and for the end."""
    began = time.perf_counter()
    session = Session.start(lab)
    try:
        yield lab.name, "start", time.perf_counter() - began, ""
        for number, step in enumerate(lab.steps, 1):
            began = time.perf_counter()
            wrong = "" if session.judge().unmet else "its check passes before it is done"
            session.solve(number)
            unmet = None if wrong else session.judge().unmet
            yield "", f"{number}  {step.title}", time.perf_counter() - began, wrong or str(unmet or "")
        if picture:
            _draw(session, picture)
    finally:
        began = time.perf_counter()
        Session.stop(lab.name)
    yield "", "stop", time.perf_counter() - began, ""


def _draw(session: Session, picture: Path) -> None:
    """Keep a picture that says the same."""
    drawn = vector.picture(topology.read(session.places()))
    if not picture.exists() or vector.words(picture.read_text()) != vector.words(drawn):
        picture.write_text(drawn)


def main(arguments: Sequence[str]) -> int:
    write = "--write" in arguments
    table = Table("lab", "step", "seconds", "result")
    failed = False
    try:
        chosen = [course.find(name) for name in arguments if name != "--write"] or list(course.labs())
        for lab in chosen:
            directory = course.COURSE / lab.name
            if write:
                (directory / "README.md").write_text(readme.render(lab))
            for name, step, seconds, wrong in play(lab, directory / readme.PICTURE if write else None):
                table.add_row(*map(Text, (name, step, f"{seconds:.2f}", wrong or "ok")))
                failed = failed or bool(wrong)
    except NetplugError as error:
        print(f"labs: {error}", file=sys.stderr)
        failed = True
    Console().print(table)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
