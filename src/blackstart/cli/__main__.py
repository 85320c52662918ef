"""`python -m blackstart.cli` is `blackstart`."""

from blackstart.cli.start import main

main()
