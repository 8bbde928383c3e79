"""No network: a namespace of its own with nothing but `lo`."""

from netplug_drivers.nothing import Nothing


class Null(Nothing):
    """The sandbox has its loopback interface from birth, so there is nothing to make."""
