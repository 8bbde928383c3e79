"""What the runtime needs of the daemon's settings."""

from __future__ import annotations

from typing import Protocol


class RuntimeSettings(Protocol):
    """`netplug.settings.Settings` has these; the three about names hold for containers that say nothing themselves."""

    @property
    def runtime(self) -> str:
        """`runc`, `crun`, or the path of one."""
        ...

    @property
    def resolv_conf(self) -> str:
        """The host's."""
        ...

    @property
    def dns(self) -> tuple[str, ...]: ...

    @property
    def dns_search(self) -> tuple[str, ...]: ...

    @property
    def dns_opt(self) -> tuple[str, ...]: ...
