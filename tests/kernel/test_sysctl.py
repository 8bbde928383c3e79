"""Network sysctls of the namespace that the thread is in."""

from __future__ import annotations

from pathlib import Path

import pytest

from netplug.errors import KernelError
from netplug.kernel import namespaces, sysctl
from tests.kernel.inside import Sandboxes, command, in_host


@in_host
def test_read_and_write():
    sysctl.write("net.ipv4.ip_forward", "1")

    assert sysctl.read("net.ipv4.ip_forward") == command("sysctl", "-n", "net.ipv4.ip_forward").strip() == "1"


@in_host
def test_words_are_separated_by_one_space():
    sysctl.write("net.ipv4.ip_local_port_range", "20000 30000")

    assert sysctl.read("net.ipv4.ip_local_port_range") == "20000 30000"


@in_host
def test_a_dot_in_an_interface_name_is_a_slash():
    command("ip", "link", "add", "br.100", "type", "bridge")
    sysctl.write("net.ipv4.conf.br/100.route_localnet", "1")

    assert sysctl.read("net.ipv4.conf.br/100.route_localnet") == "1"
    assert command("sysctl", "-n", "net.ipv4.conf.br/100.route_localnet").strip() == "1"


@in_host
def test_it_is_the_namespace_that_the_thread_is_in(tmp_path: Path):
    sysctl.write("net.ipv4.ip_forward", "0")
    with Sandboxes(tmp_path, 1) as sandboxes:
        with namespaces.entered(sandboxes[0]):
            sysctl.write("net.ipv4.ip_forward", "1")

        assert sysctl.read("net.ipv4.ip_forward") == "0"
        assert command("sysctl", "-n", "net.ipv4.ip_forward", namespace=sandboxes[0]).strip() == "1"


@in_host
def test_errors_say_what_was_asked():
    with pytest.raises(KernelError, match=r"set sysctl net.ipv4.ip_forward=maybe: Invalid argument"):
        sysctl.write("net.ipv4.ip_forward", "maybe")
    with pytest.raises(KernelError, match=r"read sysctl net.ipv4.nothing: No such file or directory"):
        sysctl.read("net.ipv4.nothing")
