"""The smallest driver that does something: a veth pair per endpoint and no bridge. An example to start from, and a double for tests."""

from __future__ import annotations

from netplug.driver import Capabilities
from netplug.model import Endpoint, Network, Sandbox
from netplug.plan import Address, LinkUp, Plan, Publish, Remove, Veth, removal


class FakeDriver:
    """Each endpoint is alone with its pair."""

    capabilities = Capabilities()

    def validate(self, network: Network) -> None:
        """Every option is taken, none has a meaning."""

    def create_network(self, network: Network) -> Plan:
        return ()

    def delete_network(self, network: Network) -> Plan:
        return ()

    def join(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Plan:
        inside = sandbox.namespace
        return (
            _pair(endpoint, sandbox),
            Address(namespace=inside, link=endpoint.interface, address=endpoint.address),
            LinkUp(namespace=inside, link=endpoint.interface),
        )

    def leave(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Plan:
        return (Remove(op=_pair(endpoint, sandbox)),)

    def publish(self, network: Network, endpoint: Endpoint) -> Plan:
        address = endpoint.address.split("/")[0]
        return tuple(
            Publish(protocol=port.protocol, host_ip=port.host_ip, host_port=port.host_port, address=address, port=port.port)
            for port in endpoint.ports
        )

    def unpublish(self, network: Network, endpoint: Endpoint) -> Plan:
        return removal(self.publish(network, endpoint))


def _pair(endpoint: Endpoint, sandbox: Sandbox) -> Veth:
    return Veth(name=endpoint.host_interface, peer=endpoint.interface, peer_namespace=sandbox.namespace, mac=endpoint.mac)
