"""What a case folder holds, and how it is written."""
