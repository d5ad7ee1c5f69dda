"""Results: the folder of files of a case, and tables over many cases."""
