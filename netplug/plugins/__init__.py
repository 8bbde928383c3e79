"""Docker v1 plugins of other makers (https://docs.docker.com/engine/extend/plugin_api/): where they are, and how they are asked."""

from __future__ import annotations

import secrets

INSTANCE = secrets.token_hex(8)
"""This process, should it be a plugin itself."""
