"""Pseudo-labels: livers outlined by a network on unlabelled CTs, checked, shown to a person, listed for training."""
