"""docs/firewall.md says what is there: it is what the real rules give, and every set, map and chain has its sentence."""

from __future__ import annotations

import shutil

import pytest

from tests.golden.__main__ import PAGE
from tests.golden.document import document, named, sentence
from tests.golden.rules import shown
from tests.golden.scenarios import SCENARIOS, Scenario
from tests.golden.sentences import CHAINS, IPTABLES, SETS
from tests.hosts import command

READ_WITH = {"nft": "nftables v1.0.6", "iptables": "iptables v1.8.9"}
"""Other versions print the same rules in other words."""


def parts(backend: str, scenario: Scenario) -> set[str]:
    found = shown(backend, scenario)
    return set(named([*found.base, *found.added, *found.inside]))


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario.title for scenario in SCENARIOS])
def test_everything_has_a_sentence(backend: str, scenario: Scenario):
    found = parts(backend, scenario)
    assert found
    for part in found:
        assert sentence(part).endswith("."), part


def test_no_sentence_is_about_nothing():
    last, first = SCENARIOS[-1], SCENARIOS[0]
    there = {part for backend in ("nftables", "iptables") for scenario in (first, last) for part in parts(backend, scenario)}
    assert {*SETS, *CHAINS, *IPTABLES} - there == set()


@pytest.mark.parametrize("scenario", SCENARIOS[1:], ids=[scenario.title for scenario in SCENARIOS[1:]])
def test_every_scenario_adds_something(scenario: Scenario):
    assert shown("nftables", scenario).added
    assert shown("iptables", scenario).added


def test_the_page_is_what_the_rules_give():
    for program, version in READ_WITH.items():
        assert shutil.which(program)
        said = command(program, "--version").stdout
        if not said.startswith(version):
            pytest.skip(f"the page is made with {version}; here is {said.strip()}")
    assert PAGE.read_text() == document(), "run `make docs`, and look at what has changed"
