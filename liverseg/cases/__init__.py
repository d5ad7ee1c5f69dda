"""Which CTs there are to compute, and what a case is."""
