"""What is only noticed (`--no-heal`) is said once each time that it goes, not once for ever."""

from __future__ import annotations

import logging
from unittest.mock import Mock

import pytest

from netplug.controller.account import Account
from netplug.controller.concern import Subject
from netplug.kernel.journal import Journal

FIREWALL, NETWORK = Subject("firewall"), Subject("network", "n1")


def said(caplog: pytest.LogCaptureFixture, account: Account) -> str:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        account.say()
    return caplog.text


def test_what_is_wrong_is_said_once_until_it_has_been_right(caplog: pytest.LogCaptureFixture):
    account = Account(Mock(spec=Journal))
    account.notice(NETWORK, ["demo: bridge br0", "demo: address"])
    assert "demo: bridge br0; demo: address; left as it is" in said(caplog, account)

    account.notice(NETWORK, ["demo: bridge br0"])
    account.notice(FIREWALL, [])
    assert said(caplog, account) == ""

    account.notice(NETWORK, ["demo: bridge br0", "demo: address"])
    assert "changed: demo: address; left as it is" in said(caplog, account)

    account.notice(NETWORK, [])
    assert account.told == {}
    account.notice(NETWORK, ["demo: bridge br0"])
    assert "demo: bridge br0" in said(caplog, account)
