"""Words: what users say that comes to stand in files of lines and blanks, such as a container's hosts and resolv.conf."""

from __future__ import annotations

import re
from collections.abc import Iterable

from netplug.errors import InvalidArgument

_PARTING = re.compile(r"[\s\x00-\x1f\x7f-\x9f]")


def check_words(what: str, *texts: str) -> None:
    """InvalidArgument for a text that would be two words, or two lines, where it is written: the second one could say anything."""
    for text in texts:
        if _PARTING.search(text):
            raise InvalidArgument(f"invalid {what} {text!r}: white space and control characters are not allowed")


def check_files(servers: Iterable[str], search: Iterable[str], options: Iterable[str], extra_hosts: Iterable[str] = ()) -> None:
    """The same for all that is said of a container's hosts and resolv.conf.

    Servers too: behind a scope's `%` nearly any text is an address.
    """
    check_words("DNS server", *servers)
    check_words("DNS search domain", *search)
    check_words("DNS option", *options)
    check_words("add-host", *extra_hosts)
