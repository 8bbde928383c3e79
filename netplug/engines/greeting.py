"""What an engine asks before anything else, and what is always answered the same."""

from __future__ import annotations

from typing import Any

from netplug.plugins import INSTANCE

LOCAL, GLOBAL = "netplug", "netplug-global"
"""Address spaces."""
ACTIVATE = "Plugin.Activate"
"""Said once by each process of an engine."""

GREETINGS: dict[str, dict[str, Any]] = {
    ACTIVATE: {"Implements": ["NetworkDriver", "IpamDriver"], "Instance": INSTANCE},
    # Of the engine's host alone: which nodes have a network in common is our own affair.
    "NetworkDriver.GetCapabilities": {"Scope": "local", "ConnectivityScope": "local"},
    "IpamDriver.GetCapabilities": {"RequiresMACAddress": False, "RequiresRequestReplay": False},
    "IpamDriver.GetDefaultAddressSpaces": {"LocalDefaultAddressSpace": LOCAL, "GlobalDefaultAddressSpace": GLOBAL},
}
