"""Commands with several names: every one is tried."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from netplug.cli.command import Failure


def each(names: Sequence[str], action: Callable[[str], object], at_once: bool = False) -> int:
    """Try every name, all at once if wanted; what fails is said on stderr, and makes the exit code 1."""

    def attempt(name: str) -> Failure | None:
        try:
            action(name)
        except Failure as error:
            return error
        return None

    code = 0
    for error in _at_once(attempt, names) if at_once and len(names) > 1 else map(attempt, names):
        if error:
            click.echo(error.message, err=True)
            code = 1
    return code


def _at_once(attempt: Callable[[str], Failure | None], names: Sequence[str]) -> list[Failure | None]:
    from concurrent.futures import ThreadPoolExecutor  # for the few commands that wait long

    with ThreadPoolExecutor(min(len(names), 50)) as pool:
        return list(pool.map(attempt, names))
