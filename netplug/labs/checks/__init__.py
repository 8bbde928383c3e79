"""How a step is checked: by the kernel's state and by real packets, never by what was typed. One module for each kind of check.

In lab.toml a check is a table with a `kind`, the place `at` which it looks, and `why` it matters:

    [[steps.checks]]
    kind = "address"
    at = "host1/red"
    dev = "veth-red"
    address = "10.0.0.1/24"
    why = "Without an address …"
"""

from netplug.labs.checks.address import AddressCheck
from netplug.labs.checks.base import Check, Find
from netplug.labs.checks.doctor import DoctorCheck
from netplug.labs.checks.driver import DriverCheck
from netplug.labs.checks.fdb import FdbCheck
from netplug.labs.checks.key import KeyCheck
from netplug.labs.checks.link import LinkCheck
from netplug.labs.checks.name import NameCheck
from netplug.labs.checks.namespace import NamespaceCheck
from netplug.labs.checks.neighbour import NeighbourCheck
from netplug.labs.checks.ping import PingCheck
from netplug.labs.checks.route import RouteCheck
from netplug.labs.checks.rule import RuleCheck
from netplug.labs.checks.socket import SocketCheck
from netplug.labs.checks.source import SourceCheck
from netplug.labs.checks.sysctl import SysctlCheck
from netplug.labs.checks.tcp import TcpCheck

AnyCheck = (
    AddressCheck
    | DoctorCheck
    | DriverCheck
    | FdbCheck
    | KeyCheck
    | LinkCheck
    | NameCheck
    | NamespaceCheck
    | NeighbourCheck
    | PingCheck
    | RouteCheck
    | RuleCheck
    | SocketCheck
    | SourceCheck
    | SysctlCheck
    | TcpCheck
)

__all__ = ["AnyCheck", "Check", "Find"]
