"""The demo: all steps from data to results, on phantoms."""

from liverseg.demo.run import DemoSize, run_demo

__all__ = ["DemoSize", "run_demo"]
