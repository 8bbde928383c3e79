"""The minimal runtime: images, bundles and a container's life, over runc (or crun) under conmon.

Containers, their logs, terminals and exit codes outlive the daemon. The network is not made here: `netplug.controller` makes it, as it
does for every other engine.
"""
