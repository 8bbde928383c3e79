"""Front doors for other engines: their containers on our networks.

`server` speaks the Docker Engine's plugin protocol, version 1, on a unix socket: `network_driver` and `ipam_driver` hold what it may ask,
`shapes` are the bodies. Each handler is a thin translation into a call of the controller. The engine waits for the answer, so a handler
never asks the engine anything: `learner` does, by the engine's own API (`engine_api`), and afterwards.
"""

from __future__ import annotations

from netplug.engines.engine_api import EngineApi
from netplug.engines.server import PluginServer

__all__ = ["EngineApi", "PluginServer"]
