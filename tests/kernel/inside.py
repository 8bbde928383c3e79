"""A network of their own for tests of the kernel room: `@in_host` runs a test in a thread that is alone in a new namespace.

What happened is read with `ip`, never with our own code. `Sandboxes` are namespaces below a directory, let go of at the end.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from netplug.kernel import namespaces, syscalls
from netplug.plan import DnsRedirect, FirewallOp, Remove, Step

DEADLINE = 60.0


def in_host(test: Callable[..., Any]) -> Callable[..., None]:
    """Run a test function, or coroutine function, in a fresh network namespace with `lo` up."""

    @functools.wraps(test)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        raised: list[BaseException] = []

        def body() -> None:
            try:
                syscalls.unshare_network()
                command("ip", "link", "set", "lo", "up")
                result = test(*args, **kwargs)
                if inspect.iscoroutine(result):
                    asyncio.run(asyncio.wait_for(result, DEADLINE))
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=body, daemon=True)
        thread.start()
        thread.join(2 * DEADLINE)
        assert not thread.is_alive(), "the test hangs"
        if raised:
            raise raised[0]

    return wrapper


def command(*argv: str, namespace: str = "") -> str:
    """The output of a command in the calling thread's namespace, or in the one at that path."""
    enter = ["nsenter", f"--net={namespace}"] if namespace else []
    return subprocess.run([*enter, *argv], check=True, capture_output=True, text=True, timeout=30).stdout


def ip(*argv: str, namespace: str = "") -> list[dict[str, Any]]:
    """`ip -j -d …`, without the empty records that it prints for what a filter left out."""
    return [record for record in json.loads(command("ip", "-j", "-d", *argv, namespace=namespace) or "[]") if record]


def link(name: str, namespace: str = "") -> dict[str, Any]:
    """One link; {} if there is none."""
    return next((record for record in ip("link", namespace=namespace) if record["ifname"] == name), {})


def addresses(name: str, namespace: str = "") -> set[str]:
    """Of all but link scope."""
    records = ip("address", "show", "dev", name, namespace=namespace)
    return {f"{one['local']}/{one['prefixlen']}" for record in records for one in record["addr_info"] if one["scope"] != "link"}


def routes(namespace: str = "", family: str = "-4") -> dict[str, tuple[str, str, str]]:
    """Gateway, link and protocol by destination."""
    records = ip(family, "route", namespace=namespace)
    return {one["dst"]: (one.get("gateway", ""), one["dev"], one.get("protocol", "")) for one in records if one["dst"] != "fe80::/64"}


class Sandboxes:
    """Namespaces `s0`, `s1`, … below a directory."""

    def __init__(self, folder: Path, count: int) -> None:
        self.paths = [str(folder / f"s{number}") for number in range(count)]

    def __enter__(self) -> Self:
        for path in self.paths:
            namespaces.create(path)
        return self

    def __exit__(self, *_: object) -> None:
        for path in self.paths:
            namespaces.remove(path)

    def __getitem__(self, number: int) -> str:
        return self.paths[number]


class FakeFirewall:
    """Remembers, by namespace, which ops are in place; refuses those in `refused`."""

    name = "fake"

    def __init__(self) -> None:
        self.rules: dict[str, list[FirewallOp]] = {}
        self.transactions: list[tuple[str, int]] = []
        self.refused: set[FirewallOp] = set()

    def start(self) -> None: ...

    def apply(self, namespace: str, steps: Sequence[FirewallOp | Remove]) -> list[Step]:
        for step in steps:
            if step in self.refused:
                raise syscalls.refusal("change the rules", OSError(17, "refused by the test"))
        self.transactions.append((namespace, len(steps)))
        rules = self.rules.setdefault(namespace, [])
        changed: list[Step] = []
        for step in steps:
            if isinstance(step, Remove):
                if step.op in rules:
                    rules.remove(step.op)  # type: ignore[arg-type]
                    changed.append(step)
            elif step not in rules:
                rules.append(step)
                changed.append(step)  # type: ignore[arg-type]
        return changed

    def redirects(self, op: DnsRedirect) -> bool:
        return op in self.rules.get(op.namespace, [])

    def replace(self, steps: Sequence[FirewallOp]) -> None:
        self.transactions.append(("replace", len(steps)))
        self.rules[""] = list(steps)

    def explain(self, namespace: str, steps: Sequence[FirewallOp | Remove]) -> list[str]:
        return [f"{namespace}: {step}" for step in steps]

    def explain_base(self) -> list[str]:
        return []

    def clear(self) -> None:
        self.rules.clear()
