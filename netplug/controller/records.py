"""The controller's memory: every record of this host by id, and the store's writes that keep them.

Keys below `/netplug/v1/`: `networks/<id>`, `network-names/<name>`, `claims/<word>`, `endpoints/<network>/<id>`,
`endpoint-names/<network>/<container name>`, `addresses/<network>/<address>`, `sandboxes/<id>`. A name, a claim and an address are keys of
their own, whose value is the owner's id: making one that exists fails the transaction, so nothing is ever given twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import msgspec

from netplug.errors import Ambiguous, NotFound
from netplug.model import Endpoint, Network, Sandbox, encode
from netplug.store import PREFIX, Compare, Delete, Exists, Missing, Put, Store, Write

Change = tuple[list[Compare], list[Write]]


class Records:
    """Networks, endpoints and sandboxes in memory. What is in here has been, or is just being, written to the store."""

    def __init__(self) -> None:
        self.networks: dict[str, Network] = {}
        self.endpoints: dict[str, Endpoint] = {}
        self.sandboxes: dict[str, Sandbox] = {}
        self._network_names: dict[str, str] = {}
        self._of_network: dict[str, dict[str, Endpoint]] = defaultdict(dict)
        self._of_sandbox: dict[str, dict[str, Endpoint]] = defaultdict(dict)
        self._container_names: dict[tuple[str, str], str] = {}
        self._linking: dict[tuple[str, str], dict[str, Endpoint]] = defaultdict(dict)
        """By network and the sandbox that is linked to: the endpoints that link."""

    async def load(self, store: Store) -> None:
        """Everything, from three ranges."""
        for item in (await store.range(f"{PREFIX}networks/"))[1]:
            self.add_network(msgspec.json.decode(item.value, type=Network))
        for item in (await store.range(f"{PREFIX}sandboxes/"))[1]:
            self.add_sandbox(msgspec.json.decode(item.value, type=Sandbox))
        for item in (await store.range(f"{PREFIX}endpoints/"))[1]:
            self.add_endpoint(msgspec.json.decode(item.value, type=Endpoint))

    def add_network(self, network: Network) -> None:
        """Who has a name keeps it: one of the cluster's may have the name of one of this host's."""
        self.networks[network.id] = network
        self._network_names.setdefault(network.name, network.id)

    def drop_network(self, network: Network) -> None:
        self.networks.pop(network.id, None)
        self.drop_name(network)
        self._of_network.pop(network.id, None)

    def drop_name(self, network: Network) -> None:
        """Before it gets another one."""
        if self._network_names.get(network.name) == network.id:
            del self._network_names[network.name]

    def add_endpoint(self, endpoint: Endpoint) -> None:
        """Also replaces an older version of the same endpoint."""
        self.endpoints[endpoint.id] = endpoint
        self._of_network[endpoint.network][endpoint.id] = endpoint
        self._of_sandbox[endpoint.sandbox][endpoint.id] = endpoint
        self._container_names[endpoint.network, endpoint.container_name] = endpoint.id
        for identity in endpoint.links:
            self._linking[endpoint.network, identity][endpoint.id] = endpoint

    def drop_endpoint(self, endpoint: Endpoint) -> None:
        self.endpoints.pop(endpoint.id, None)
        self._container_names.pop((endpoint.network, endpoint.container_name), None)
        for index, key in ((self._of_network, endpoint.network), (self._of_sandbox, endpoint.sandbox)):
            index[key].pop(endpoint.id, None)
            if not index[key]:
                del index[key]
        for identity in endpoint.links:
            clients = self._linking.pop((endpoint.network, identity), {})
            clients.pop(endpoint.id, None)
            if clients:
                self._linking[endpoint.network, identity] = clients

    def add_sandbox(self, sandbox: Sandbox) -> None:
        self.sandboxes[sandbox.id] = sandbox

    def drop_sandbox(self, sandbox: Sandbox) -> None:
        self.sandboxes.pop(sandbox.id, None)

    def of_network(self, network: str) -> list[Endpoint]:
        return list(self._of_network[network].values()) if network in self._of_network else []

    def of_sandbox(self, sandbox: str) -> list[Endpoint]:
        return list(self._of_sandbox[sandbox].values()) if sandbox in self._of_sandbox else []

    def linking_to(self, network: str, sandbox: str) -> list[Endpoint]:
        """Endpoints on the network that have a link to that sandbox."""
        return list(self._linking[network, sandbox].values()) if (network, sandbox) in self._linking else []

    def has_container(self, network: str, name: str) -> bool:
        """Whether a container of that name is on the network."""
        return (network, name) in self._container_names

    def network(self, reference: str) -> Network:
        """By full name, then by full id, then by a prefix of an id that fits one network only."""
        found = self.networks.get(self._network_names.get(reference, reference))
        if found is not None:
            return found
        fits = [network for identity, network in self.networks.items() if reference and identity.startswith(reference)]
        if len(fits) > 1:
            raise Ambiguous(f"network {reference} is ambiguous ({len(fits)} matches found on ID prefix)")
        if not fits:
            raise NotFound(f"network {reference} not found")
        return fits[0]

    def network_named(self, name: str) -> Network | None:
        return self.networks.get(self._network_names.get(name, ""))

    def network_name(self, identity: str) -> str:
        network = self.networks.get(identity)
        return network.name if network else ""


def network_key(identity: str) -> str:
    return f"{PREFIX}networks/{identity}"


def sandbox_key(identity: str) -> str:
    return f"{PREFIX}sandboxes/{identity}"


def endpoint_key(endpoint: Endpoint) -> str:
    return f"{PREFIX}endpoints/{endpoint.network}/{endpoint.id}"


def put_network(network: Network, claims: Iterable[str]) -> Change:
    """A new network: its name and what it claims must be free."""
    unique = _unique_keys_of_network(network, claims)
    writes: list[Write] = [Put(network_key(network.id), encode(network))]
    writes += [Put(key, network.id.encode()) for key in unique]
    return [Missing(key) for key in unique], writes


def delete_network(network: Network, claims: Iterable[str]) -> list[Write]:
    return [Delete(key) for key in (network_key(network.id), *_unique_keys_of_network(network, claims))]


def _unique_keys_of_network(network: Network, claims: Iterable[str]) -> list[str]:
    """Its name, what only it may claim (not what several share), and its VNI."""
    keys = [f"{PREFIX}network-names/{network.name}", *(f"{PREFIX}claims/{claim}" for claim in claims if "=" not in claim)]
    return [*keys, f"{PREFIX}vnis/{network.vni}"] if network.vni else keys


def put_endpoint(endpoint: Endpoint) -> Change:
    """A new endpoint: the network must exist; its name and its addresses in the network must be free."""
    unique = _unique_keys(endpoint)
    compares: list[Compare] = [Exists(network_key(endpoint.network)), *(Missing(key) for key in unique)]
    writes: list[Write] = [Put(endpoint_key(endpoint), encode(endpoint))]
    writes += [Put(key, endpoint.id.encode()) for key in unique]
    return compares, writes


def update_endpoint(endpoint: Endpoint) -> Write:
    return Put(endpoint_key(endpoint), encode(endpoint))


def delete_endpoint(endpoint: Endpoint) -> list[Write]:
    return [Delete(key) for key in (endpoint_key(endpoint), *_unique_keys(endpoint))]


def renamed_network(before: Network, after: Network) -> Change:
    """The same network under a name that must be free."""
    old, new = f"{PREFIX}network-names/{before.name}", f"{PREFIX}network-names/{after.name}"
    writes: list[Write] = [Put(network_key(after.id), encode(after)), Delete(old), Put(new, after.id.encode())]
    return [Exists(network_key(after.id)), Missing(new)], writes


def renamed_endpoint(before: Endpoint, after: Endpoint) -> Change:
    """The same endpoint, as it is called now: a name of its own must be free."""
    compares: list[Compare] = [Exists(endpoint_key(after))]
    writes: list[Write] = [Put(endpoint_key(after), encode(after))]
    if before.container_name != after.container_name:
        names = f"{PREFIX}endpoint-names/{after.network}/"
        compares.append(Missing(names + after.container_name))
        writes += [Delete(names + before.container_name), Put(names + after.container_name, after.id.encode())]
    return compares, writes


def address_key(network: str, address: str) -> str:
    """`address` without prefix."""
    return f"{PREFIX}addresses/{network}/{address}"


def put_sandbox(sandbox: Sandbox) -> Write:
    return Put(sandbox_key(sandbox.id), encode(sandbox))


def delete_sandbox(sandbox: Sandbox) -> Write:
    return Delete(sandbox_key(sandbox.id))


def _unique_keys(endpoint: Endpoint) -> list[str]:
    keys = []
    if endpoint.container_name:
        keys.append(f"{PREFIX}endpoint-names/{endpoint.network}/{endpoint.container_name}")
    for address in filter(None, (endpoint.address, endpoint.address6)):
        keys.append(address_key(endpoint.network, address.split("/")[0]))
    return keys
