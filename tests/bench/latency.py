"""How long calls take: milliseconds per sample, through the API as a client sees it."""

from __future__ import annotations

from tests.bench.engines import Engine, container, create_container, create_network, network, remove_container, timed

Samples = dict[str, list[float]]


def connections(engine: Engine, rounds: int) -> Samples:
    """Connect a running container to a second network, and disconnect it."""
    api, samples = engine.api, Samples(connect=[], disconnect=[])
    with network(api, "one"), network(api, "two"), container(api, "probe", "one"):
        for _ in range(rounds):
            samples["connect"].append(timed(api.call, "POST", "/networks/two/connect", {"Container": "probe"}))
            samples["disconnect"].append(timed(api.call, "POST", "/networks/two/disconnect", {"Container": "probe"}))
    return samples


def networks(engine: Engine, rounds: int) -> Samples:
    """Create a network and remove it."""
    samples = Samples(create=[], rm=[])
    for _ in range(rounds):
        samples["create"].append(timed(create_network, engine.api, "one"))
        samples["rm"].append(timed(engine.api.call, "DELETE", "/networks/one"))
    return samples


def starts(engine: Engine, rounds: int) -> Samples:
    """Start a container with one published port, and remove it by force."""
    api, samples = engine.api, Samples(start=[], rm=[])
    with network(api, "one"):
        for _ in range(rounds):
            create_container(api, "probe", "one", ports={80: 20000})
            samples["start"].append(timed(api.call, "POST", "/containers/probe/start"))
            samples["rm"].append(timed(remove_container, api, "probe"))
    return samples


def published(engine: Engine, count: int, rounds: int) -> list[float]:
    """Connect a running container that publishes `count` ports: one connect publishes them all."""
    api, samples = engine.api, []
    ports = {8000 + number: 20000 + number for number in range(count)}
    with network(api, "one"), container(api, "probe", "one", ports=ports):
        for _ in range(rounds):
            api.call("POST", "/networks/one/disconnect", {"Container": "probe"})
            samples.append(timed(api.call, "POST", "/networks/one/connect", {"Container": "probe"}))
            _check_published(engine, count)
    return samples


def _check_published(engine: Engine, count: int) -> None:
    ports = engine.api.call("GET", "/containers/probe/json")["NetworkSettings"]["Ports"]
    bound = sum(1 for bindings in ports.values() if bindings)
    if bound != count:
        raise RuntimeError(f"{engine.name} has published {bound} of {count} ports")
