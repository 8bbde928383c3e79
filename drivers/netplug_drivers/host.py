"""The host's own network namespace: a container on it shares the host's links, addresses and ports."""

from netplug_drivers.nothing import Nothing


class Host(Nothing):
    """The sandbox is the host's namespace, so there is nothing to make."""
