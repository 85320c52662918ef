"""`python -m paperexchange` is `paperexchange`."""

from paperexchange.cli import main

main()
