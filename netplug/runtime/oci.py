"""The OCI runtime, runc or crun: its commands and its errors. Creating is asked of it by conmon, in conmon.py."""

from __future__ import annotations

import re
import shutil

from netplug import faults
from netplug.errors import InvalidArgument, NetplugError, Unavailable
from netplug.runtime.paths import Paths
from netplug.runtime.programs import run


class RuntimeFailed(NetplugError):
    """The runtime could not do it; the text is its own, and `exit_code` what Docker makes of it (126, 127, 128)."""

    def __init__(self, action: str, message: str) -> None:
        self.exit_code = exit_code(message)
        self.http_status = InvalidArgument.http_status if self.exit_code < 128 else NetplugError.http_status
        super().__init__(f"OCI runtime {action} failed: {message}: unknown")


def exit_code(message: str) -> int:
    """127: there is no such program; 126: it cannot be run; 128: anything else."""
    if "executable file not found" in message or "no such file or directory" in message:
        return 127
    return 126 if any(words in message for words in ("permission denied", "not a directory", "is a directory")) else 128


def clean(message: str) -> str:
    """The last line of a runtime's stderr, where the message is; crun's in runc's words, which the docker command looks for."""
    lines = [line for line in message.strip().splitlines() if line.strip()]
    text = lines[-1].strip() if lines else "it gave no reason"
    for phrase in ("No such file or directory", "Permission denied", "Not a directory", "Is a directory"):
        text = text.replace(phrase, phrase.lower())
    return re.sub(r"executable file `(.*?)` not found in \$PATH", r'exec: "\1": executable file not found in $PATH', text)


def find(program: str) -> str:
    """Its path; Unavailable if it is not installed."""
    found = shutil.which(program)
    if found is None:
        raise Unavailable(f"{program} is not installed: install it, or name another in the daemon's settings")
    return found


class Oci:
    """One runtime with its own state directory."""

    def __init__(self, paths: Paths, runtime: str) -> None:
        self._paths = paths
        self.program = find(runtime)

    async def start(self, container: str) -> None:
        faults.point("process.before")
        finished = await run(self._command("start", container))
        faults.point("process.after")
        if finished.code:
            raise RuntimeFailed("start", clean(finished.error))

    async def delete(self, container: str) -> None:
        """Kill what runs of it and forget it; fine if there is none."""
        finished = await run(self._command("delete", "--force", container))
        if finished.code and (self._paths.runtime / container).exists():
            raise RuntimeFailed("delete", clean(finished.error))

    def _command(self, *arguments: str) -> list[str]:
        return [self.program, "--root", str(self._paths.runtime), *arguments]
