"""The demo ends its running commands."""

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


@pytest.mark.parametrize("runner", [run_bundle, run_side_by_side])
def test_a_signal_ends_the_commands_of_the_demo(runner, tmp_path, monkeypatch):
    stages, started = StageSeconds(tmp_path), []
    add = stages.commands.add
    monkeypatch.setattr(stages.commands, "add", lambda process: (started.append(process), add(process)))
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    monkeypatch.setattr(stages_module, "bundle_command", lambda *_: command)
    run_overrides = {"output_dir": str(tmp_path / "a")}
    overrides = (
        run_overrides if runner is run_bundle else {"a": run_overrides, "b": {"output_dir": str(tmp_path / "b")}}
    )
    count = 1 if runner is run_bundle else 2

    def send_signal():
        while len(started) < count:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=send_signal, daemon=True).start()
    with pytest.raises(SystemExit) as ended, GracefulShutdown():
        runner(stages, "liver_lesion_joint", "training", ["configs/train.yaml"], overrides)
    assert ended.value.code == 128 + signal.SIGTERM
    assert [process.wait(10) for process in started] == [-signal.SIGTERM] * count


def test_a_command_that_begins_late_ends_at_once():
    commands = RunningCommands()
    commands.stop()
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    commands.add(process)
    assert process.wait(10) == -signal.SIGTERM
