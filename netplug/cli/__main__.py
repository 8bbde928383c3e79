"""`python -m netplug.cli`: the command, where its script is not on the PATH."""

from netplug.cli import main

main()
