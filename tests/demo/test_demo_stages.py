"""Commands of the demo end with it."""

import os
import signal
import sys
import threading

import pytest

from liverseg.demo import stages as stages_module
from liverseg.demo.stages import Stages, run_bundle, run_side_by_side
from liverseg.signals import ToldToEnd


@pytest.mark.parametrize("how", [run_bundle, run_side_by_side])
def test_commands_end_when_the_demo_is_told_to(how, tmp_path, monkeypatch):
    stages, begun = Stages(tmp_path), threading.Event()
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    monkeypatch.setattr(stages_module, "bundle_command", lambda *_: command)
    one = {"output_dir": str(tmp_path / "a")}
    overrides = one if how is run_bundle else {"a": one, "b": {"output_dir": str(tmp_path / "b")}}
    wanted = 1 if how is run_bundle else 2

    def tell():
        while len(stages.processes) < wanted:
            begun.wait(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=tell, daemon=True).start()
    with pytest.raises(SystemExit) as ended, ToldToEnd():
        how(stages, "liver_lesion_joint", "training", ["configs/train.yaml"], overrides)
    assert ended.value.code == 128 + signal.SIGTERM
    assert [process.wait(10) for process in stages.processes] == [-signal.SIGTERM] * wanted
