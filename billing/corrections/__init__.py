"""Void and correction of usage by deciding an account again from its opening."""
