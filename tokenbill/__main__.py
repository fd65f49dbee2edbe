"""Entry point of ``python -m tokenbill``."""

from tokenbill.cli import main

main()
