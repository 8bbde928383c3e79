"""What the documentation shows must work: its driver passes the conformance kit, its links lead somewhere, its tables are whole."""

from __future__ import annotations

import re
import sys
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest

from netplug import daemon
from netplug.cli import program
from netplug.cli.template_functions import FUNCTIONS
from netplug.cli.templates import Template
from netplug.driver import Driver
from netplug.errors import InvalidArgument
from netplug.testing import DriverConformance, example_network

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def example() -> Iterator[types.ModuleType]:
    """The driver of docs/drivers.md, imported under the name that the page gives it."""
    module = types.ModuleType("netplug_ptp")
    exec(compile(blocks(ROOT / "docs/drivers.md", "python")[0], "docs/drivers.md", "exec"), module.__dict__)
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


class TestExampleDriver(DriverConformance):
    """The kit, over the driver that the page's own entry point names."""

    @pytest.fixture(autouse=True)
    def _driver(self, example: types.ModuleType) -> None:
        (settings,) = blocks(ROOT / "docs/drivers.md", "toml")
        module, _, name = tomllib.loads(settings)["project"]["entry-points"]["netplug.drivers"]["ptp"].partition(":")
        self._class = getattr(sys.modules[module], name)

    def make_driver(self) -> Driver:
        return self._class()  # type: ignore[no-any-return]


def test_the_examples_test_is_the_kit(example: types.ModuleType):
    shown: dict[str, object] = {}
    exec(compile(blocks(ROOT / "docs/drivers.md", "python")[1], "docs/drivers.md", "exec"), shown)
    kit = shown["TestPointToPoint"]
    assert isinstance(kit, type)
    assert issubclass(kit, DriverConformance)
    assert isinstance(kit().make_driver(), example.PointToPoint)


def test_the_example_refuses_what_it_cannot_read(example: types.ModuleType):
    network = msgspec.structs.replace(example_network("ptp"), options={"com.docker.network.driver.mtu": "big"})
    with pytest.raises(InvalidArgument, match='invalid MTU "big"'):
        example.PointToPoint().validate(network)


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_lead_to_files(page: Path):
    targets = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_lines_are_short(page: Path):
    code = False
    for line in page.read_text().splitlines():
        code ^= line.startswith("```")
        assert code or len(line) < 141, line


def test_the_drivers_interface_is_as_small_as_the_architecture_says():
    (limit,) = re.findall(r"^\| `netplug/driver\.py` \|.* under (\d+) lines ", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE)
    assert len((ROOT / "netplug/driver.py").read_text().splitlines()) < int(limit)


def test_the_readme_names_every_command():
    table = "\n".join(line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| `"))
    words = set(re.findall(r"[a-z]+", " ".join(re.findall(r"`([^`]*)`", table))))
    context = click.Context(program)
    missing = set(program.list_commands(context)) - words
    for group in ("network", "node", "image", "ipam", "lab", "driver"):
        command = program.get_command(context, group)
        assert isinstance(command, click.Group)
        missing |= set(command.list_commands(context)) - words
    assert missing == set()


def test_the_readme_names_every_flag_of_the_daemon():
    command = program.get_command(click.Context(program), "daemon")
    assert command is not None
    flags = {name for parameter in command.params for name in parameter.opts}
    assert flags - set(re.findall(r"--[a-z0-9-]+", (ROOT / "README.md").read_text())) == set()


def test_the_readme_lists_every_template_function():
    (listed,) = re.findall(r"^Functions: (.*?)\.$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", listed)) == {*FUNCTIONS, "and", "or"}


def test_the_cluster_page_says_how_long_a_start_waits():
    page = (ROOT / "docs/cluster.md").read_text()
    assert f"| a restart of the daemon | waits {daemon.PATIENCE:g} seconds for etcd," in page


def test_the_readmes_templates_can_be_read():
    found = re.findall(r"--format '([^']+)'", (ROOT / "README.md").read_text())
    templates = [text.removeprefix("table ") for text in found if "{{" in text]
    assert len(templates) > 1
    for text in templates:
        Template(text)
