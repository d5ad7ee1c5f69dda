"""The files of a case folder and their writers."""
