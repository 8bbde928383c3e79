"""What ends would do to the network, of containers and of nodes, as shell commands. Nothing is changed."""

from __future__ import annotations

from netplug.api.services import Nodes, Services
from netplug.errors import Conflict
from netplug.runtime.model import Container


async def stopped(services: Services, container: Container) -> list[str]:
    """Its sandbox and all its endpoints go."""
    return services.controller.explain([await services.controller.plan_sandbox_removal(container.id)])


async def killed(services: Services, container: Container) -> list[str]:
    if container.status != "running":
        raise Conflict(f"Cannot kill container: {container.name}: Container {container.id} is not running")
    return await stopped(services, container)


async def removed(services: Services, container: Container, force: bool) -> list[str]:
    if container.status == "running" and not force:
        raise Conflict(
            f"You cannot remove a running container {container.id}. Stop the container before attempting removal or force remove"
        )
    return await stopped(services, container)


def node_removed(nodes: Nodes, name: str, force: bool) -> list[str]:
    """What the node had goes out of the cluster's store; this host's kernel follows as it follows all that others do."""
    if nodes.get(name).name == nodes.name:
        raise Conflict(f"node {name} is this one: remove it from another node")
    if nodes.lives(name) and not force:
        raise Conflict(f"node {name} is alive: stop its daemon first, or use --force")
    return []
