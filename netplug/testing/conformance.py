"""What every driver must keep to, as tests that a driver package subclasses. They need no root: they look at plans."""

from __future__ import annotations

import msgspec

from netplug.capability import PeerAware, Underlay
from netplug.driver import Capabilities, Driver
from netplug.model import Endpoint, Network, PoolConfig, PortBinding, Sandbox
from netplug.plan import Adopt, Announce, FirewallOp, LinkOp, Netns, Op, PlacedOp, Plan, Remove, Veth, removal


def example_network(driver: str, **changes: object) -> Network:
    """A network 172.30.0.0/16 with gateway .0.1."""
    network = Network(
        id="4e" * 32,
        name="example",
        driver=driver,
        created="2026-01-01T00:00:00.000000000Z",
        pools=(PoolConfig(subnet="172.30.0.0/16", gateway="172.30.0.1"),),
    )
    return msgspec.structs.replace(network, **changes)


def example_sandbox() -> Sandbox:
    return Sandbox(
        id="5b" * 32,
        created="2026-01-01T00:00:00.000000000Z",
        name="web",
        namespace="/run/netplug/netns/5b5b5b5b5b5b",
        cookie=4711,
        incarnation="boot",
    )


def example_endpoint(network: Network, sandbox: Sandbox, **changes: object) -> Endpoint:
    """172.30.0.2 with port 80 published as 8080."""
    endpoint = Endpoint(
        id="e0" * 32,
        network=network.id,
        sandbox=sandbox.id,
        created="2026-01-01T00:00:00.000000000Z",
        container_name=sandbox.name,
        interface="eth0",
        host_interface="vethe0e0e0e",
        address="172.30.0.2/16",
        gateway="172.30.0.1",
        mac="02:42:ac:1e:00:02",
        ports=(PortBinding(protocol="tcp", port=80, host_port=8080),),
    )
    return msgspec.structs.replace(endpoint, **changes)


class DriverConformance:
    """Subclass it, and say how the driver is made."""

    def make_driver(self) -> Driver:
        raise TypeError("make_driver() of the subclass returns the driver to test")

    def make_network(self) -> Network:
        """A network that the driver accepts."""
        pools = example_network("").pools if self.make_driver().capabilities.addresses else ()
        return example_network("under-test", pools=pools)

    def make_endpoint(self, network: Network, endpoint: Endpoint) -> Endpoint:
        """That endpoint as the driver gets it: with its `attachment`, where it acts outside the kernel (`Effectful`)."""
        return endpoint

    def test_it_says_what_it_can(self) -> None:
        assert isinstance(self.make_driver().capabilities, Capabilities)

    def test_it_accepts_a_network_without_options(self) -> None:
        self.make_driver().validate(self.make_network())

    def test_plans_are_data_that_survives_storage(self) -> None:
        """The journal keeps plans as JSON: what comes back must be equal."""
        for plan in self._plans():
            assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan

    def test_a_driver_is_pure(self) -> None:
        """The same records give the same plans, from the same driver and from a new one."""
        assert self._plans() == self._plans()

    def test_links_are_explained_by_commands(self) -> None:
        for plan in self._plans():
            for step in plan:
                op = step.op if isinstance(step, Remove) else step
                if not isinstance(op, FirewallOp):
                    assert all(isinstance(line, str) and line for line in (*step.explain(), *step.explain_removal()))

    def test_leaving_needs_no_sandbox(self) -> None:
        """Containers die in any order: what leave does happens in the host, or in a namespace of the network's own."""
        for op in map(_op, self._leave()):
            assert op.namespace != example_sandbox().namespace

    def test_what_join_makes_on_the_host_leave_takes_away(self) -> None:
        kinds = LinkOp | PlacedOp | FirewallOp | Adopt
        sandbox = example_sandbox().namespace
        made = {_identity(op) for op in map(_op, self._join()) if op.namespace != sandbox and isinstance(op, kinds)}
        gone = {_identity(_op(step)) for step in self._leave() if isinstance(step, Remove)}
        assert made <= gone

    def test_what_publish_makes_unpublish_takes_away(self) -> None:
        made = {_identity(op) for op in self._publish() if isinstance(op, FirewallOp)}
        gone = {_identity(_op(step)) for step in self._unpublish() if isinstance(step, Remove)}
        assert made == gone

    def test_what_adding_a_peer_makes_removing_takes_away(self) -> None:
        """Where the driver joins nodes (`PeerAware`). A peer of this very node is none."""
        driver = self.make_driver()
        if not isinstance(driver, PeerAware):
            return
        network, endpoint, _ = self._records()
        here = driver.on(Underlay(address="192.0.2.1"))
        remote = msgspec.structs.replace(endpoint, node="other", vtep="192.0.2.2")
        made = tuple(step for step in here.peer_added(network, remote) if not isinstance(step, Announce))
        assert made
        assert here.peer_removed(network, remote) == removal(made)
        assert here.peer_added(network, msgspec.structs.replace(remote, vtep="192.0.2.1")) == ()

    def test_names_of_links_fit(self) -> None:
        """IFNAMSIZ is 16 with the final zero."""
        for plan in self._plans():
            for op in map(_op, plan):
                names = [op.name] if isinstance(op, LinkOp | PlacedOp) else []
                names += [op.peer] if isinstance(op, Veth) else []
                names += [op.source, op.name] if isinstance(op, Adopt) else []
                assert all(0 < len(name) < 16 for name in names)

    def test_drivers_do_not_make_sandboxes(self) -> None:
        made = [op.path for plan in self._plans() for op in map(_op, plan) if isinstance(op, Netns)]
        assert example_sandbox().namespace not in made

    def _records(self) -> tuple[Network, Endpoint, Sandbox]:
        network, sandbox = self.make_network(), example_sandbox()
        if self.make_driver().capabilities.addresses:
            return network, self.make_endpoint(network, example_endpoint(network, sandbox)), sandbox
        endpoint = example_endpoint(network, sandbox, address="", gateway="", ports=())
        return network, self.make_endpoint(network, endpoint), sandbox

    def _join(self) -> Plan:
        network, endpoint, sandbox = self._records()
        return self.make_driver().join(network, endpoint, sandbox)

    def _leave(self) -> Plan:
        network, endpoint, sandbox = self._records()
        return self.make_driver().leave(network, endpoint, sandbox)

    def _publish(self) -> Plan:
        network, endpoint, _ = self._records()
        return self.make_driver().publish(network, endpoint)

    def _unpublish(self) -> Plan:
        network, endpoint, _ = self._records()
        return self.make_driver().unpublish(network, endpoint)

    def _plans(self) -> list[Plan]:
        network = self.make_network()
        driver = self.make_driver()
        return [
            driver.create_network(network),
            driver.delete_network(network),
            self._join(),
            self._leave(),
            self._publish(),
            self._unpublish(),
        ]


def _op(step: Op) -> Op:
    return step.op if isinstance(step, Remove) else step


def _identity(op: Op) -> tuple[str, str]:
    """What tells one object from another: a link's name, a rule whole."""
    return (type(op).__name__, op.name if isinstance(op, LinkOp | PlacedOp) else repr(op))
