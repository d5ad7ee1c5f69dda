"""Synthetic portal-venous abdomens with liver lesions: seeded, labelled, and no patients."""

from liverseg.phantom.writers import write_cohort, write_lits_tree

__all__ = ["write_cohort", "write_lits_tree"]
