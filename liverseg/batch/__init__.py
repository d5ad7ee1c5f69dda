"""Many CTs, one after the other or side by side, left alone: what is to be done, who does it, what has been done."""
