"""Commands of the demo end with it."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from liverseg.bundle.commands import RunningCommands
from liverseg.demo import stages as stages_module
from liverseg.demo.stages import StageSeconds, run_bundle, run_side_by_side
from liverseg.utils.shutdown import GracefulShutdown


@pytest.mark.parametrize("how", [run_bundle, run_side_by_side])
def test_commands_end_when_the_demo_is_told_to(how, tmp_path, monkeypatch):
    stages, begun = StageSeconds(tmp_path), []
    add = stages.commands.add
    monkeypatch.setattr(stages.commands, "add", lambda process: (begun.append(process), add(process)))
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    monkeypatch.setattr(stages_module, "bundle_command", lambda *_: command)
    one = {"output_dir": str(tmp_path / "a")}
    overrides = one if how is run_bundle else {"a": one, "b": {"output_dir": str(tmp_path / "b")}}
    wanted = 1 if how is run_bundle else 2

    def tell():
        while len(begun) < wanted:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=tell, daemon=True).start()
    with pytest.raises(SystemExit) as ended, GracefulShutdown():
        how(stages, "liver_lesion_joint", "training", ["configs/train.yaml"], overrides)
    assert ended.value.code == 128 + signal.SIGTERM
    assert [process.wait(10) for process in begun] == [-signal.SIGTERM] * wanted


def test_a_command_that_begins_late_ends_at_once():
    commands = RunningCommands()
    commands.stop()
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    commands.add(process)
    assert process.wait(10) == -signal.SIGTERM
