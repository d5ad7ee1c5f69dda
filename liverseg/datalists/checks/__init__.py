"""What can be wrong with a data list and its files: one module a group of checks."""
