"""Parsing of Python sources in tests that check the product's own code."""

import ast
import gc


def parse(source: str) -> ast.Module:
    """Parse a module with garbage collection disabled.

    A finalizer that prints a traceback parses too, and CPython before 3.11.8 confuses the depths of the two parses:
    ``SystemError: AST constructor recursion depth mismatch`` (gh-106905).
    """
    gc.disable()
    try:
        return ast.parse(source)
    finally:
        gc.enable()
