"""A link that somebody else has made, moved into a sandbox and back, on the real kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from netplug.errors import StepFailed
from netplug.plan import Address, Adopt, LinkUp, Plan, Remove, Route, removal
from tests.kernel.attachments import executing
from tests.kernel.inside import Sandboxes, addresses, in_host, ip, link, routes

MAC = "02:42:0a:09:00:02"


def adoption(sandbox: str) -> Adopt:
    return Adopt(source="plug0", name="eth0", link_namespace=sandbox)


def joined(sandbox: str) -> Plan:
    return (
        adoption(sandbox),
        Address(namespace=sandbox, link="eth0", address="10.9.0.2/16"),
        LinkUp(namespace=sandbox, link="eth0", mac=MAC),
        Route(namespace=sandbox, destination="default", gateway="10.9.0.1", link="eth0"),
    )


def plug() -> None:
    """What a plugin makes: a pair, the far end of which is up and stays."""
    ip("link", "add", "plug0", "type", "veth", "peer", "name", "far0")
    ip("link", "set", "far0", "up")


def names(namespace: str = "") -> set[str]:
    return {record["ifname"] for record in ip("link", namespace=namespace)}


@in_host
async def test_it_gets_its_name_mac_and_address(tmp_path: Path):
    with Sandboxes(tmp_path, 1) as (sandbox,):
        plug()
        before = link("plug0")["address"]
        async with executing() as executor:
            applied = await executor.apply(joined(sandbox))
            assert applied.changed == joined(sandbox)
            found = link("eth0", sandbox)
            assert (found["address"], found["group"], "UP" in found["flags"]) == (MAC, "default", True)
            assert before != MAC
            assert addresses("eth0", sandbox) == {"10.9.0.2/16"}
            assert routes(sandbox)["default"][:2] == ("10.9.0.1", "eth0")
            assert names() == {"lo", "far0"}

            assert await executor.ensure(joined(sandbox)) == ((), [])
            assert (await executor.restore([joined(sandbox)])).missing == []

            assert await executor.remove((Remove(op=adoption(sandbox)),)) == []
            assert names() == {"lo", "far0", "plug0"}
            assert names(sandbox) == {"lo"}
            assert "UP" not in link("plug0")["flags"]
            assert await executor.remove(removal(joined(sandbox))) == []


@in_host
async def test_what_fails_brings_it_back(tmp_path: Path):
    with Sandboxes(tmp_path, 1) as (sandbox,):
        plug()
        async with executing() as executor:
            bad = Route(namespace=sandbox, destination="default", gateway="192.0.2.1", link="eth0")
            with pytest.raises(StepFailed) as raised:
                await executor.apply((*joined(sandbox)[:-1], bad))
            assert raised.value.undone
            assert names() == {"lo", "far0", "plug0"}
            assert names(sandbox) == {"lo"}


@in_host
async def test_what_cannot_be_moved_is_said(tmp_path: Path):
    with Sandboxes(tmp_path, 1) as (sandbox,):
        async with executing() as executor:
            with pytest.raises(StepFailed, match="there is no link plug0 to move"):
                await executor.apply(joined(sandbox))
            plug()
            ip("link", "add", "eth0", "type", "bridge", namespace=sandbox)
            with pytest.raises(StepFailed, match="a link eth0 is there already"):
                await executor.apply(joined(sandbox))
            assert names() == {"lo", "far0", "plug0"}
            with pytest.raises(StepFailed, match="lo is the loopback"):
                await executor.apply((Adopt(source="lo", name="eth1", link_namespace=sandbox),))


@in_host
async def test_one_whose_name_is_taken_on_the_host_stays_where_it_is(tmp_path: Path):
    with Sandboxes(tmp_path, 1) as (sandbox,):
        plug()
        async with executing() as executor:
            await executor.apply(joined(sandbox))
            ip("link", "add", "plug0", "type", "bridge")
            errors = await executor.remove((Remove(op=adoption(sandbox)),))
            assert [str(error) for error in errors] == [f"move eth0 of {sandbox} back as plug0: a link plug0 is there already"]
            assert "eth0" in names(sandbox)


@in_host
async def test_a_sandbox_that_is_gone_has_nothing_to_give_back(tmp_path: Path):
    with Sandboxes(tmp_path, 1) as (sandbox,):
        plug()
        async with executing() as executor:
            await executor.apply(joined(sandbox))
    async with executing() as executor:
        assert await executor.remove((Remove(op=adoption(sandbox)),)) == []
