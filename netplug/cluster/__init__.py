"""This node among the others of its cluster: that it lives, which others do, and which networks they all have."""

from __future__ import annotations

from netplug.cluster.nodes import Nodes
from netplug.cluster.routes import Routes

__all__ = ["Nodes", "Routes"]
