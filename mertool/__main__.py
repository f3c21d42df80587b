"""`python -m mertool`."""

from mertool.cli import main

main()
