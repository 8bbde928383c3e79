"""The import rules name every room there is: a new one is closed to drivers, to IPAM and to the kit until somebody opens it to them."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOR_ALL = {"netplug.addressing", "netplug.errors", "netplug.model", "netplug.plugins"}
FOR_DRIVERS = {"netplug.capability", "netplug.driver", "netplug.plan", "netplug.registry"}


def rooms() -> set[str]:
    modules = (path for path in (ROOT / "netplug").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists())
    return {f"netplug.{path.stem}" for path in modules} - {"netplug.__init__"}


@pytest.mark.parametrize(
    ("package", "opened"),
    [
        ("netplug_drivers", FOR_ALL | FOR_DRIVERS),
        ("netplug_ipam", FOR_ALL),
        ("netplug.testing", FOR_ALL - {"netplug.plugins"} | FOR_DRIVERS | {"netplug.testing"}),
    ],
)
def test_what_is_not_open_is_forbidden(package: str, opened: set[str]):
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (forbidden,) = (set(one["forbidden_modules"]) for one in contracts if one.get("source_modules") == [package])
    assert rooms() - forbidden == opened
