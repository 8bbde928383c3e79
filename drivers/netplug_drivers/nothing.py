"""A driver that changes nothing: what `host` and `none` have in common."""

from __future__ import annotations

from netplug.driver import Capabilities
from netplug.errors import InvalidArgument
from netplug.model import Endpoint, Network, Sandbox
from netplug.plan import Plan


class Nothing:
    """No address, no link, no port; one network of its kind per host."""

    capabilities = Capabilities(addresses=False, ports=False, singleton=True)

    def validate(self, network: Network) -> None:
        if network.internal or network.pools:
            raise InvalidArgument(f"network {network.name} takes neither subnets nor --internal: its driver gives no addresses")

    def create_network(self, network: Network) -> Plan:
        return ()

    def delete_network(self, network: Network) -> Plan:
        return ()

    def join(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Plan:
        return ()

    def leave(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Plan:
        return ()

    def publish(self, network: Network, endpoint: Endpoint) -> Plan:
        return ()

    def unpublish(self, network: Network, endpoint: Endpoint) -> Plan:
        return ()
