"""Signals of processes that tests start."""

import signal


def use_default_signals():
    """Handle SIGINT and SIGHUP by default: tests that were started in the background inherit that they are ignored."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
