"""Find the CTs to compute and name their results."""
