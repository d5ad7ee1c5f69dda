"""Inference over many CTs: planning, dispatching to worker processes or Ray actors, journal, tables."""
