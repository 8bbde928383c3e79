"""Checks of what daemons leave in a host, where the labs themselves do not meet each of their sentences."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from netplug.labs import course
from netplug.labs.checks.key import KeyCheck
from netplug.labs.checks.socket import SocketCheck
from netplug.labs.course import Commands
from netplug.labs.finding import Unmet
from netplug.labs.session import Session


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    """A host without a daemon."""
    yield Session.start(course.find("1"))
    Session.stop()


def test_a_socket_that_was_left_is_told_from_one_that_is_served(session: Session):
    path = "/run/some.sock"
    wanted = SocketCheck(at="host1", path=path, daemon="the daemon", why="it is asked there")
    unwanted = SocketCheck(at="host1", path=path, daemon="the daemon", listens=False, why="it is to be dead")
    with pytest.raises(Unmet, match=r"expected the daemon on host1 to listen at /run/some\.sock; found there is no such socket"):
        wanted.look(session.place)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{session.place('host1').run_directory.parent}{path}")
        listener.listen()
        wanted.look(session.place)
        with pytest.raises(Unmet, match=r"to be gone: nobody listens at /run/some\.sock; found somebody answers there"):
            unwanted.look(session.place)
    with pytest.raises(Unmet, match="found the file is there, and nobody behind it"):
        wanted.look(session.place)
    unwanted.look(session.place)


def test_an_etcd_that_is_not_there_is_not_an_etcd_without_the_key(session: Session):
    check = KeyCheck(at="host1", store="127.0.0.1:2379", key="nodes/*", what="a node", absent=True, why="it is asked there")
    with pytest.raises(Unmet, match=r"expected a node gone from etcd.*; found etcd at 127\.0\.0\.1:2379 does not answer host1 \(.+\)"):
        check.look(session.place)


def test_an_engines_interface_is_found_by_what_is_known_of_its_name(session: Session):
    session.type(Commands(run="ip link add vx-0123456789ab type vxlan id 42 dstport 4789"))
    assert session.place("host1").link("vx-*")["ifname"] == "vx-0123456789ab"
    with pytest.raises(Unmet, match=r"an interface br-\* in host1; found host1 has lo, vx-0123456789ab"):
        session.place("host1").link("br-*")


def test_a_network_that_is_not_here_is_said(session: Session):
    with pytest.raises(Unmet, match="expected the overlay network demo on host1; found overlay networks on host1: none"):
        session.place("host1/%demo").require()
