"""The built-in network drivers: one module each, reached through the entry points that anybody's driver uses."""
