"""Faults a batch is put through: killed processes, damaged and hostile inputs; and how fast and even it runs."""
