"""nftables in the namespace of the calling thread, through the `nft` command."""

from __future__ import annotations

import json
import subprocess
from typing import Any


def nft(*arguments: str) -> str:
    return subprocess.run(["nft", *arguments], check=True, capture_output=True, text=True, timeout=10).stdout


def load(text: str) -> None:
    subprocess.run(["nft", "-f", "-"], check=True, input=text, text=True, timeout=10)


def ruleset() -> list[Any]:
    """Everything nftables holds in this namespace, without handles and in a fixed order."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: sorted(map(json.dumps, found)) if key == "elem" else plain(found) for key, found in value.items() if key != "handle"
            }
        return [plain(item) for item in value] if isinstance(value, list) else value

    found: list[Any] = plain(json.loads(nft("-j", "list", "ruleset"))["nftables"])
    return found


def elements(*names: str) -> dict[str, list[str]]:
    """What is in the sets and maps of these names, or in all that are not empty."""
    sets = [item[kind] for item in ruleset() for kind in ("set", "map") if kind in item]
    return {item["name"]: item.get("elem", []) for item in sets if item["name"] in names or (not names and "elem" in item)}


def paste(commands: list[str]) -> None:
    """Type them into a shell, as a reader of --explain does."""
    subprocess.run(["sh", "-e"], input="\n".join(commands) + "\n", check=True, text=True, timeout=20)
