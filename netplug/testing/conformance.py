"""What every driver must keep to, as tests that a driver package subclasses. They need no root: they look at plans."""

from __future__ import annotations

import msgspec

from netplug.capability import Effectful, PeerAware, Underlay
from netplug.driver import Capabilities, Driver
from netplug.errors import NetplugError
from netplug.model import Attachment, Endpoint, Network, PoolConfig, PortBinding, Sandbox
from netplug.plan import Address, Adopt, Announce, FirewallOp, LinkOp, Netns, Op, PlacedOp, Plan, Remove, Veth, removal


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
    """Subclass it, and say how the driver is made. Each rule is a test; an AssertionError says which step breaks it, and how."""

    def make_driver(self) -> Driver:
        raise TypeError("make_driver() of the subclass returns the driver to test")

    def make_network(self) -> Network:
        """A network that the driver accepts."""
        capabilities = self.make_driver().capabilities
        pools = example_network("").pools if capabilities.addresses else ()
        shared = {"scope": "global", "vni": 4097} if capabilities.scope == "global" else {}
        return example_network("under-test", pools=pools, **shared)

    def make_endpoint(self, network: Network, endpoint: Endpoint) -> Endpoint:
        """That endpoint as the driver gets it: with its `attachment`, where it acts outside the kernel (`Effectful`)."""
        if isinstance(self.make_driver(), Effectful):
            return msgspec.structs.replace(endpoint, attachment=Attachment(link="port0", gateway=endpoint.gateway))
        return endpoint

    def test_it_says_what_it_can(self) -> None:
        found = getattr(self.make_driver(), "capabilities", None)
        _expect(isinstance(found, Capabilities), f"its capabilities are {found!r}, and not a netplug.driver.Capabilities")

    def test_it_accepts_a_network_without_options(self) -> None:
        network = self.make_network()
        try:
            self.make_driver().validate(network)
        except NetplugError as error:
            raise AssertionError(f"validate() refuses the network {network.name}: {error}") from error

    def test_plans_are_data_that_survives_storage(self) -> None:
        """The journal keeps plans as JSON: what comes back must be equal."""
        for name, plan in self._plans().items():
            _expect(isinstance(plan, tuple), f"{name}() returns a {type(plan).__name__}, and not a tuple of ops")
            for step in plan:
                _expect(isinstance(step, Op), f"{name}() returns {step!r}, which is no op of netplug.plan")
            stored = msgspec.json.encode(plan)
            try:
                same = msgspec.json.decode(stored, type=Plan) == plan
            except msgspec.ValidationError as error:
                raise AssertionError(f"the plan of {name}() cannot be read again: {error}") from error
            _expect(same, f"the plan of {name}() is another one after it was stored: {plan!r}")

    def test_a_driver_is_pure(self) -> None:
        """The same records give the same plans, from the same driver and from a new one."""
        driver = self.make_driver()
        first, second, fresh = self._plans(driver), self._plans(driver), self._plans()
        for name, plan in first.items():
            _expect(plan == second[name], f"{name}() returns another plan when it is asked again")
            _expect(plan == fresh[name], f"{name}() of a new driver returns another plan for the same records")

    def test_links_are_explained_by_commands(self) -> None:
        for name, plan in self._plans().items():
            for step in plan:
                op = step.op if isinstance(step, Remove) else step
                if not isinstance(op, FirewallOp):
                    lines = (*step.explain(), *step.explain_removal())
                    _expect(all(isinstance(line, str) and line for line in lines), f"a step of {name}() is not explained: {step!r}")

    def test_joining_gives_the_sandbox_its_address(self) -> None:
        """Where it has any: by whatever length of prefix."""
        _, endpoint, sandbox = self._records()
        wanted = endpoint.address.partition("/")[0]
        ops = [op for op in map(_op, self._join()) if isinstance(op, Address) and op.namespace == sandbox.namespace]
        given = [op.address.partition("/")[0] for op in ops]
        _expect(not wanted or wanted in given, f"join() gives the sandbox {', '.join(given) or 'no address'}, and not its own, {wanted}")

    def test_leaving_needs_no_sandbox(self) -> None:
        """Containers die in any order: what leave does happens in the host, or in a namespace of the network's own."""
        for op in map(_op, self._leave()):
            _expect(op.namespace != example_sandbox().namespace, f"leave() acts in the sandbox, which may be gone: {op!r}")

    def test_what_join_makes_on_the_host_leave_takes_away(self) -> None:
        kinds = LinkOp | PlacedOp | FirewallOp | Adopt
        sandbox = example_sandbox().namespace
        made = [op for op in map(_op, self._join()) if op.namespace != sandbox and isinstance(op, kinds)]
        gone = {_identity(_op(step)) for step in self._leave() if isinstance(step, Remove)}
        for op in made:
            _expect(_identity(op) in gone, f"leave() does not take away what join() makes: {op!r}")

    def test_what_a_network_makes_its_deletion_takes_away(self) -> None:
        plans = self._plans()
        gone = {_identity(_op(step)) for step in plans["delete_network"] if isinstance(step, Remove)}
        for op in plans["create_network"]:
            if isinstance(op, LinkOp | PlacedOp | FirewallOp):
                _expect(_identity(op) in gone, f"delete_network() does not take away what create_network() makes: {op!r}")

    def test_what_publish_makes_unpublish_takes_away(self) -> None:
        made = {_identity(op): op for op in self._publish() if isinstance(op, FirewallOp)}
        gone = {_identity(_op(step)): _op(step) for step in self._unpublish() if isinstance(step, Remove)}
        for identity in made.keys() - gone.keys():
            _expect(False, f"unpublish() does not take away what publish() makes: {made[identity]!r}")
        for identity in gone.keys() - made.keys():
            _expect(False, f"unpublish() takes away what publish() has not made: {gone[identity]!r}")

    def test_what_adding_a_peer_makes_removing_takes_away(self) -> None:
        """Where the driver joins nodes (`PeerAware`). A peer of this very node is none."""
        driver = self.make_driver()
        if not isinstance(driver, PeerAware):
            return
        network, endpoint, _ = self._records()
        here = driver.on(Underlay(address="192.0.2.1"))
        remote = msgspec.structs.replace(endpoint, node="other", vtep="192.0.2.2")
        made = tuple(step for step in here.peer_added(network, remote) if not isinstance(step, Announce))
        _expect(made != (), "peer_added() does nothing for an endpoint on another node")
        _expect(here.peer_removed(network, remote) == removal(made), "peer_removed() is not the opposite of peer_added()")
        own = msgspec.structs.replace(remote, vtep="192.0.2.1")
        _expect(here.peer_added(network, own) == (), "peer_added() makes something for an endpoint of this node")

    def test_names_of_links_fit(self) -> None:
        """IFNAMSIZ is 16 with the final zero."""
        for called, plan in self._plans().items():
            for op in map(_op, plan):
                names = [op.name] if isinstance(op, LinkOp | PlacedOp) else []
                names += [op.peer] if isinstance(op, Veth) else []
                names += [op.source, op.name] if isinstance(op, Adopt) else []
                for name in names:
                    _expect(0 < len(name) < 16, f"{called}() names a link {name!r}: it has {len(name)} characters, and may have 1 to 15")

    def test_drivers_do_not_make_sandboxes(self) -> None:
        for name, plan in self._plans().items():
            made = [op.path for op in map(_op, plan) if isinstance(op, Netns)]
            _expect(example_sandbox().namespace not in made, f"{name}() makes the sandbox's namespace, which is the controller's")

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

    def _plans(self, driver: Driver | None = None) -> dict[str, Plan]:
        """By the method that returns it."""
        network, endpoint, sandbox = self._records()
        driver = driver or self.make_driver()
        return {
            "create_network": driver.create_network(network),
            "delete_network": driver.delete_network(network),
            "join": driver.join(network, endpoint, sandbox),
            "leave": driver.leave(network, endpoint, sandbox),
            "publish": driver.publish(network, endpoint),
            "unpublish": driver.unpublish(network, endpoint),
        }


def _expect(condition: bool, reason: str) -> None:
    """Not a bare assert: the reason is for people who run the kit without pytest."""
    if not condition:
        raise AssertionError(reason)


def _op(step: Op) -> Op:
    return step.op if isinstance(step, Remove) else step


def _identity(op: Op) -> tuple[str, str]:
    """What tells one object from another: a link's name, a rule whole."""
    return (type(op).__name__, op.name if isinstance(op, LinkOp | PlacedOp) else repr(op))
