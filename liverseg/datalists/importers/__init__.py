"""Importers, one for each layout of data sets."""
