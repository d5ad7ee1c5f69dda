"""Checks of data lists and their files, one module per group of checks."""
