"""What doctor finds outside the kernel: in the store and in the resolver, with doubles for both."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from netplug.controller import Difference, EndpointRequest
from netplug.controller.doctor.books import BookCheck
from netplug.controller.doctor.kernel import looked_at
from netplug.errors import NotFound
from netplug.model import Endpoint
from netplug.store import PREFIX
from tests.unit.test_controller import Lab, lab

__all__ = ["lab"]


@pytest.fixture
async def endpoint(lab: Lab) -> Endpoint:
    """Of `web` on `demo`."""
    await lab.network()
    sandbox = await lab.sandbox()
    return await lab.controller.connect("demo", sandbox.id, EndpointRequest(names=("web",)))


def books(lab: Lab) -> BookCheck:
    return lab.controller._doctor._books


async def found(lab: Lab) -> list[str]:
    return [f"{one.subject}: {one.found}" for one in await books(lab).differences()]


async def treat(lab: Lab) -> None:
    differences: list[Difference] = await books(lab).differences()
    for remedy in dict(one.remedy for one in differences).values():
        await remedy()


@pytest.mark.parametrize("kind", ["networks", "sandboxes", "endpoints"])
async def test_a_record_that_the_store_has_lost(lab: Lab, endpoint: Endpoint, kind: str):
    assert await found(lab) == []
    before = dict(lab.store.data)
    key = next(key for key in before if key.startswith(f"{PREFIX}{kind}/"))
    del lab.store.data[key]

    assert await found(lab) == [f"the store: the store has no record {key.removeprefix(PREFIX)}"]
    await treat(lab)

    assert await found(lab) == []
    assert lab.store.data == before


async def test_a_record_that_the_daemon_does_not_know(lab: Lab, endpoint: Endpoint):
    lab.store.data[f"{PREFIX}endpoints/{endpoint.network}/other"] = b"{}"

    assert await found(lab) == [f"the store: the store has a record endpoints/{endpoint.network}/other that the daemon does not know"]
    await treat(lab)

    assert await found(lab) == []


async def test_names_that_the_resolver_has_otherwise(lab: Lab, endpoint: Endpoint):
    key = endpoint.network, endpoint.id
    lab.resolver.endpoints[key] = msgspec.structs.replace(lab.resolver.endpoints[key], address="10.50.0.9")
    lab.resolver.endpoints["other", "gone"] = lab.resolver.endpoints[key]
    lab.resolver.sandboxes.clear()

    assert await found(lab) == [
        "container web: the resolver does not answer it as it should",
        "network demo: the resolver does not know web as 10.50.0.2",
        "the resolver: 1 endpoints or sandboxes that are not there have names still",
    ]
    await treat(lab)

    assert await found(lab) == []


async def test_a_look_that_fails_is_a_difference():
    """What is gone in the middle of a look must not hide the rest."""

    def fail() -> Iterator[Difference]:
        yield from ()
        raise NotFound("no such namespace")

    (difference,) = looked_at("container web", fail())

    assert (difference.subject, difference.found) == ("container web", "it could not be looked at: no such namespace")
    with pytest.raises(NotFound):
        await difference.remedy[1]()
