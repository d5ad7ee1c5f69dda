"""The import of torch for inference: the garbage collector, and threads that wait."""

import gc
import os
import subprocess
import sys

import pytest
import torch  # noqa: F401

from liverseg.utils.torch_imports import torch_imports

SCRIPT = """
import gc
from liverseg.utils.torch_imports import torch_imports
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


@pytest.mark.parametrize(("given", "used"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_that_wait_sleep_unless_the_environment_says_otherwise(given, used):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_DISPLAY_ENV": "true"} | ({} if given is None else {"OMP_WAIT_POLICY": given})
    script = "from liverseg.utils.torch_imports import torch_imports\nwith torch_imports():\n    import torch"
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    shown = [line.split("=")[1].strip(" '") for line in run.stderr.splitlines() if "OMP_WAIT_POLICY" in line]
    assert used in shown
