"""Pictures as PNG, for where SVG is not taken: drawn by librsvg's own program."""

from __future__ import annotations

import subprocess

from netplug.errors import Unavailable

_ZOOM = 2
"""Dots for each of the picture's units: letters stay sharp."""


def png(picture: str) -> bytes:
    """Of an SVG picture. Unavailable without the program, or where it fails."""
    try:
        done = subprocess.run(["rsvg-convert", f"--zoom={_ZOOM}"], input=picture.encode(), capture_output=True, check=False)
    except FileNotFoundError:
        raise Unavailable("a PNG is drawn by rsvg-convert, which is not here: apt-get install librsvg2-bin, or take --svg") from None
    if done.returncode:
        raise Unavailable(f"rsvg-convert could not draw it: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
