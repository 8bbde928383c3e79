"""Fixtures of the unit tests."""

from cli_fixtures import cli, cli_daemon

__all__ = ["cli", "cli_daemon"]
