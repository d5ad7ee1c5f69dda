"""One importer for each form that data sets come in."""
