"""Pseudo-labels: livers outlined by a network on unlabelled CTs, checked, reviewed by a person, listed for training."""
