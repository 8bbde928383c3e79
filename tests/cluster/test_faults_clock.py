"""The clock may jump: nothing is decided by it. Leases are etcd's, and what waits here waits by the monotonic clock."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import netplug

ROOT = Path(netplug.__file__).parent
MODULES = sorted((*ROOT.glob("controller/*.py"), *ROOT.glob("cluster/*.py"), *ROOT.glob("store/etcd*.py")))
WALL = {"time", "time_ns", "gmtime", "localtime", "datetime", "utcnow"}
RECORDS = {"created", "started"}
"""Fields that say when something was made, for people to read."""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_fault_clock_jumps(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("time", "datetime"):
            assert node.attr not in WALL, f"line {node.lineno} reads the clock"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "now":
            raise AssertionError(f"line {node.lineno} reads the clock for something else than a record")
        if isinstance(node, ast.keyword) and node.arg in RECORDS and isinstance(node.value, ast.Call):
            node.value.func = ast.Constant(None)  # this is what it may be read for
