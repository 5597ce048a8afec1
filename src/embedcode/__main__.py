"""`python -m embedcode`."""

from embedcode.cli import main

main()
