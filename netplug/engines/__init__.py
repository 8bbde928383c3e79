"""Front doors for other engines: their containers on our networks.

`server` speaks the Docker Engine's plugin protocol, version 1, on a unix socket (`listener`, `connection`, `wire`): `network_driver` and
`ipam_driver` hold what it may ask, `shapes` are the bodies. Each handler is a thin translation into a call of the controller. The engine
waits for the answer, so a handler never asks the engine anything: `learner` does, by the engine's own API (`engine_api`), and afterwards.
`reception` answers the first questions (`greeting`) before the rest is there: it is imported first, and nothing here that takes long.
"""
