"""Files, locks, signals, processes and number formats: nothing of the liver in them."""
