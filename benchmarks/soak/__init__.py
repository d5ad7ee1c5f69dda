"""Fault tests of `liverseg batch` (killed processes, damaged and hostile inputs) and measurements of its speed."""
