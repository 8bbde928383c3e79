"""The shape of every netplug command and group: Docker's usage errors and flag syntax on top of click.

`Command` turns click's complaints into Docker's sentences and exit codes (a flag that is wrong: 125; too many or too few arguments: 1)
and accepts pflag's spellings that click does not know (`--rm=false`, `-p=80:80`). `Value` makes a flag's type out of a function that
returns the parsed value or raises ValueError. `explainable` gives a command `--explain` and `--dry-run`.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

if TYPE_CHECKING:
    from netplug.cli.client import Client

F = TypeVar("F", bound=Callable[..., Any])

FLAG_ERROR = 125
USAGE_ERROR = 1
FORMAT_HELP = """Print with a Go template: 'table TEMPLATE', 'json', or TEMPLATE with {{.Field}}, {{json .}}, {{range}}, {{if}}, {{with}},
{{$x := .Y}}, and the functions eq ne lt le gt ge and or not len index slice print printf println json join split lower upper title
truncate pad"""
_TRUE = {"1", "t", "T", "true", "TRUE", "True"}
_FALSE = {"0", "f", "F", "false", "FALSE", "False"}


class Failure(click.ClickException):
    """What went wrong, in the user's words, and the exit code; `str(failure)` is what is printed."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class Unread(Failure):
    """Whoever reads our output has had enough (`netplug ps | head -1`): nothing to say, and the exit code of a SIGPIPE."""

    def __init__(self) -> None:
        super().__init__("", 141)


class InvalidFlag(click.UsageError):
    """A flag's value could not be understood."""

    def __init__(self, value: str, flag: str, reason: str, context: click.Context | None) -> None:
        super().__init__(f'invalid argument "{value}" for "{flag}" flag: {reason}', context)


def boolean(text: str) -> bool:
    """Go's `strconv.ParseBool`."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def integer(text: str) -> int:
    """Go's `strconv.ParseInt`, decimal."""
    if re.fullmatch(r"[+-]?[0-9]{1,18}", text) is None:
        raise ValueError(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)


class Value(click.ParamType[Any]):
    """A flag whose value is read by `parse`: text in, value out, or ValueError with the reason."""

    def __init__(self, parse: Callable[[str], Any], name: str = "string") -> None:
        self.parse, self.name = parse, name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self.parse(value)
        except ValueError as error:
            raise InvalidFlag(value, _flag_name(param), str(error), ctx) from None


def _flag_name(param: click.Parameter | None) -> str:
    """As pflag writes it: `-f, --filter`; other spellings of the same flag are not named."""
    names = param.opts if param else []
    long = [name for name in names if name.startswith("--")][:1]
    return ", ".join([*(name for name in names if not name.startswith("--")), *long])


INT = Value(integer, "int")
BOOL = Value(boolean, "bool")


class Command(click.Command):
    """A command whose errors are Docker's, and whose options stop at the first argument if `interspersed` is false."""

    def __init__(self, *args: Any, interspersed: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.context_settings = {"help_option_names": ["--help"], "allow_interspersed_args": interspersed}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, spelled_for_click(args, self.get_params(ctx), ctx.allow_interspersed_args))
        except (click.MissingParameter, click.BadArgumentUsage):
            self._wrong_count(ctx)
        except click.UsageError as error:
            if isinstance(error, InvalidFlag):
                raise Failure(f"{error.message}\nSee '{ctx.command_path} --help'.", FLAG_ERROR) from None
            message = flag_error(error, args)
            if message is None:
                self._wrong_count(ctx)
            raise Failure(f"{message}\nSee '{ctx.command_path} --help'.", FLAG_ERROR) from None

    def _wrong_count(self, ctx: click.Context) -> NoReturn:
        arguments = [param for param in self.params if isinstance(param, click.Argument)]
        needed = sum(max(argument.nargs, 1) for argument in arguments if argument.required)
        open_ended = any(argument.nargs < 0 for argument in arguments)
        most = len(arguments)
        if most == 1 and not needed and not open_ended:
            count = "at most 1 argument"
        elif open_ended:
            count = f"at least {needed} argument{'s' * (needed != 1)}"
        elif needed == most:
            count = f"exactly {needed} argument{'s' * (needed != 1)}" if needed else "no arguments"
        else:
            count = f"at least {needed} and at most {most} arguments"
        verb = "accepts" if count == "no arguments" else "requires"
        usage = " ".join([ctx.command_path, *self.collect_usage_pieces(ctx)])
        help_line = f"See '{ctx.command_path} --help'.\n\nUsage:  {usage}\n\n{self.get_short_help_str(200)}"
        raise Failure(f'"{ctx.command_path}" {verb} {count}.\n{help_line}', USAGE_ERROR)


def flag_error(error: click.UsageError, args: Iterable[str]) -> str | None:
    """pflag's sentence for a flag that is unknown or lacks its value; None if the error is about something else."""
    if isinstance(error, click.NoSuchOption):
        name = error.option_name
        if name.startswith("--"):
            return f"unknown flag: {name}"
        within = next((arg for arg in args if arg.startswith("-") and name[1:] in arg), name)
        return f"unknown shorthand flag: '{name[1:]}' in {within}"
    if isinstance(error, click.BadOptionUsage):
        name = error.option_name
        return f"flag needs an argument: {name}" if name.startswith("--") else f"flag needs an argument: '{name[1:]}' in {name}"
    if isinstance(error, click.BadParameter):
        return error.format_message().rstrip(".")
    return None


def spelled_for_click(args: list[str], params: Iterable[click.Parameter], interspersed: bool) -> list[str]:
    """pflag's spellings in click's: `--rm=true` and `--rm=false` for flags without a value, `-p=80:80` for short ones with one."""
    options = {name: param for param in params if isinstance(param, click.Option) for name in (*param.opts, *param.secondary_opts)}
    done: list[str] = []
    rest = list(args)
    while rest:
        arg = rest.pop(0)
        if arg == "--" or (not interspersed and (not arg.startswith("-") or arg == "-")):
            return [*done, arg, *rest]
        name, equals, value = arg.partition("=")
        option = options.get(name)
        if option is None:
            done.append(arg)
            if _takes_next(arg, options) and rest:
                done.append(rest.pop(0))
        elif option.is_flag and equals:
            try:
                wanted = boolean(value) == (name not in option.secondary_opts)
            except ValueError as error:
                raise InvalidFlag(value, name, str(error), None) from None
            done += (option.opts if wanted else option.secondary_opts)[:1]
        elif equals and not name.startswith("--"):
            done += [name, value]
        else:
            done.append(arg)
            if not option.is_flag and not equals and not option._flag_needs_value and rest:
                done.append(rest.pop(0))
    return done


def _takes_next(arg: str, options: dict[str, click.Option]) -> bool:
    """Whether a cluster of short flags (`-itp`) ends with one that takes the next argument as its value."""
    if not arg.startswith("-") or arg.startswith("--"):
        return False
    for position, letter in enumerate(arg[1:], start=1):
        option = options.get(f"-{letter}")
        if option is None:
            return False
        if not option.is_flag:
            return position == len(arg) - 1
    return False


class Group(click.Group):
    """A group that imports a command's room when the command is asked for; in its room, a command stands as `NAME_command`."""

    def __init__(self, *args: Any, rooms: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.context_settings = {"help_option_names": ["--help"]}
        self.no_args_is_help, self.invoke_without_command = False, True
        self._rooms = rooms or {}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            message = flag_error(error, args) or error.format_message()
            raise Failure(f"{message}\nSee '{ctx.command_path} --help'.", FLAG_ERROR) from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*self.commands, *self._rooms})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self._rooms:
            room = importlib.import_module(f"netplug.cli.{self._rooms[cmd_name]}")
            command: click.Command = getattr(room, f"{cmd_name}_command")
            return command
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            wrong = f"unknown flag: {args[0]}" if args[0].startswith("-") else f"netplug: unknown command: {ctx.command_path} {args[0]}"
            raise Failure(f"{wrong}\nSee '{ctx.command_path} --help'.")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        if not ctx._protected_args and not ctx.args:
            click.echo(ctx.get_help())
            return 0
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise Unread from None


class Explain:
    """Whether the user wants the change done, done and explained, or only explained; and the commands heard of so far."""

    def __init__(self, explain: bool, dry_run: bool) -> None:
        self.dry_run = dry_run
        self._wanted = explain or dry_run
        self.query = {"dryrun": "1"} if dry_run else {"explain": "1"} if explain else {}
        self._lines: list[str] = []

    def heard(self, answer: Any) -> None:
        """Keep the commands in a daemon's answer."""
        if self._wanted and isinstance(answer, dict):
            self._lines += [str(line) for line in answer.get("Explain") or []]

    def name(self, text: str) -> None:
        """Print what a change prints when it is really made: an id or a name."""
        if not self.dry_run:
            click.echo(text)

    def check(self, client: Client) -> None:
        """Refuse a dry run by a daemon that would do the change for real, because it has never heard of dry runs."""
        if self.dry_run and not client.is_netplug():
            raise Failure(f"--dry-run: the daemon at {client.host} is not netplug's")

    def show(self) -> None:
        """Print the commands, ready for pasting."""
        for line in self._lines:
            click.echo(line)


def explainable(function: F) -> F:
    """Give a command `--explain` and `--dry-run`; it is called with `explain=Explain(...)`, which prints itself at the end."""

    @click.option("--explain", is_flag=True, help="Do it, and print the commands that do the same by hand")
    @click.option("--dry-run", is_flag=True, help="Only print the commands that would do it")
    @click.pass_context
    @functools.wraps(function)
    def wrapped(ctx: click.Context, /, *args: Any, explain: bool, dry_run: bool, **kwargs: Any) -> Any:
        explanation = Explain(explain, dry_run)
        if dry_run:
            explanation.check(ctx.obj)
        try:
            return function(*args, explain=explanation, **kwargs)
        finally:
            explanation.show()

    return wrapped  # type: ignore[return-value]
