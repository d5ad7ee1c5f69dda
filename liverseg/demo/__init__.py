"""The demo: everything a user would do by hand, in order, on phantoms."""

from liverseg.demo.run import DemoSize, run_demo

__all__ = ["DemoSize", "run_demo"]
