"""Subcommands of ``tokenbill``, one module per group; `tokenbill.cli` dispatches to them."""
