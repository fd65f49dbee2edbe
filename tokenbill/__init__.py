"""Programs of Tokenbill: command line, HTTP API, webhooks, demo and local stack. Holds no billing rules."""

__all__ = ["__version__"]

__version__ = "0.1.0"
