"""Phantoms: synthetic portal venous CTs of the abdomen with labelled liver lesions, reproducible by seed."""

from liverseg.phantom.writers import write_cohort, write_lits_tree

__all__ = ["write_cohort", "write_lits_tree"]
