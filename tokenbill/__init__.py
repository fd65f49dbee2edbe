"""What a person or a program starts: command line and local stack. No billing rules."""

__version__ = "0.1.0"
