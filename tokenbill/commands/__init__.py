"""The command line, one module per group of commands; `tokenbill.cli` puts them together."""
