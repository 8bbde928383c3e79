"""netplug: one container network for every engine.

The words used everywhere are libnetwork's: a *network* is a named segment, an *endpoint* is one attachment of one *sandbox* (a
container's network namespace) to one network, a *driver* says what a network is made of in the kernel, a *pool* is what addresses
come out of. `netplug.model` holds them as data, `netplug.controller` is the one place where steps are ordered.
"""

__version__ = "0.1.0"
