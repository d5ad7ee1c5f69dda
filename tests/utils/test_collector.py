"""The garbage collector during and after the import of torch."""

import gc
import subprocess
import sys

import torch  # noqa: F401

from liverseg.utils.collector import torch_imports

SCRIPT = """
import gc
from liverseg.utils.collector import torch_imports
with torch_imports():
    during = gc.isenabled()
    import torch
made = gc.get_freeze_count()
with torch_imports():
    again = gc.isenabled()
print(during, made > 100_000, gc.isenabled(), again, gc.get_freeze_count() == made)
"""


def test_the_collector_waits_for_torch_and_leaves_its_objects_alone():
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "True", "True", "True", "True"]


def test_a_process_that_has_torch_keeps_its_collector():
    frozen = gc.get_freeze_count()
    with torch_imports():
        assert gc.isenabled()
    assert gc.get_freeze_count() == frozen
