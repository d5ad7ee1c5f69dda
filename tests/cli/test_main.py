"""The command line: subcommands, wrong usage, exit codes."""

import os
import signal
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from liverseg import __version__
from liverseg.cli import main as module
from liverseg.cli.main import SUBCOMMANDS, main

REQUIRED = {
    "datalist": ["lits", "root"],
    "prepare": ["list.json", "-o", "out"],
    "phantom": ["out"],
    "synthesize": ["list.json", "-o", "out"],
    "predict": ["in", "out"],
    "batch": ["in", "out"],
    "listen": ["out"],
    "compare": ["before", "after", "out"],
    "pseudo-label": ["in", "-o", "out"],
    "study": ["run", "study.yaml"],
    "doctor": [],
    "demo": ["out"],
}
"""Required arguments of each subcommand, with the path last."""


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Run commands in an empty folder and check that it stays empty."""
    monkeypatch.chdir(tmp_path)
    yield
    assert list(tmp_path.iterdir()) == []


def test_version_and_help(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"liverseg {__version__}\n"
    assert main(["--help"]) == 0
    output = capsys.readouterr().out
    assert all(subcommand in output and text in output for subcommand, text in SUBCOMMANDS.items())


@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
def test_every_subcommand_has_help(subcommand, capsys):
    assert main([subcommand, "--help"]) == 0
    output = capsys.readouterr().out
    assert output.startswith(f"usage: liverseg {subcommand} ")
    assert "--debug" in output


@pytest.mark.parametrize("subcommand", ["predict", "batch"])
def test_help_names_the_column_that_the_lesion_threshold_compares(subcommand, capsys):
    main([subcommand, "--help"])
    after = " ".join(capsys.readouterr().out.rpartition("--lesion-threshold")[2].split())
    assert after.startswith("LESION_THRESHOLD leave out lesions with a lower lesion_score, 0 to 1")


def test_no_subcommand_is_wrong_usage(capsys):
    assert main([]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"liverseg: a subcommand is needed: {', '.join(SUBCOMMANDS)} (see liverseg --help)"


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("datlist", "did you mean datalist?"),
        ("predcit", "did you mean predict?"),
        ("Demo", "did you mean demo?"),
        ("resegment", f"there are {', '.join(SUBCOMMANDS)}"),
    ],
)
def test_an_unknown_subcommand_names_the_closest(word, words, capsys):
    assert main([word]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"liverseg: unknown subcommand {word!r}; {words} (see liverseg --help)"


@pytest.mark.parametrize(
    ("subcommand", "given", "closest"),
    [
        ("datalist", "--fold=3", "--folds"),
        ("prepare", "--outptu=x", "--output"),
        ("phantom", "--volume", "--volumes"),
        ("predict", "--batchsize", "--batch-size"),
        ("batch", "--case-time-out", "--case-timeout"),
        ("pseudo-label", "--min-agreemnt", "--min-agreement"),
        ("compare", "--tragets", "--targets"),
        ("demo", "--joint_epochs", "--joint-epochs"),
    ],
)
def test_an_unknown_option_of_every_subcommand_names_the_closest(subcommand, given, closest, capsys):
    assert main([subcommand, *REQUIRED[subcommand], given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    command = "liverseg datalist lits" if subcommand == "datalist" else f"liverseg {subcommand}"
    assert line == f"{command}: unknown argument {given}; did you mean {closest}? (see {command} --help)"


def test_an_option_of_another_task_is_not_suggested(capsys):
    assert main(["study", "run", "study.yaml", "--output", "report"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "liverseg study run: unknown argument --output (see liverseg study run --help)"


def test_an_unknown_option_before_the_subcommand_names_the_closest(capsys):
    assert main(["--versoin"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "liverseg: unknown argument --versoin; did you mean --version? (see liverseg --help)"


@pytest.mark.parametrize("subcommand", [subcommand for subcommand, arguments in REQUIRED.items() if arguments])
def test_an_empty_path_is_not_the_current_folder(subcommand, capsys):
    assert main([subcommand, *REQUIRED[subcommand][:-1], ""]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "a path is needed, this is empty" in line


def test_every_subcommand_is_among_those_whose_options_are_tested():
    assert {*REQUIRED, "train"} == set(SUBCOMMANDS)  # train accepts its bundle's arguments


@pytest.mark.parametrize("subcommand", ["phantom", "predict", "datalist"])
def test_a_missing_argument_is_named(subcommand, capsys):
    assert main([subcommand]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"liverseg {subcommand}: the following arguments are required: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["phantom", "out", "--volumes", "many"], "argument --volumes: invalid int value: 'many'"),
        (["datalist", "cohrot", "root"], "argument source: invalid choice: 'cohrot'; did you mean cohort?"),
        (["datalist", "msd", "root"], "argument source: invalid choice: 'msd'"),
        (["phantom", "out", "--kind", "liver"], "argument --kind: invalid choice: 'liver'"),
    ],
)
def test_a_value_of_another_kind_is_named(arguments, words, capsys):
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_a_users_mistake_is_one_line_and_debug_shows_where_it_was_found(capsys):
    assert main(["datalist", "lits", "none"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "liverseg: none: no such folder; a LiTS tree holds volume-N.nii and segmentation-N.nii"
    with pytest.raises(Exception, match="no such folder"):
        main(["datalist", "lits", "none", "--debug"])


def test_an_interrupted_command_says_so(capsys, monkeypatch):
    monkeypatch.setattr("liverseg.cli.datalist.build_datalist", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit) as ended:
        main(["datalist", "lits", "none"])
    assert ended.value.code == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "liverseg: ended by SIGTERM\n"


def test_the_installed_command_is_this_one_and_exits_with_its_code():
    (command,) = [entry for entry in entry_points(group="console_scripts") if entry.name == "liverseg"]
    assert command.load() is main
    done = subprocess.run(
        [sys.executable, module.__file__, "demoo"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean demo?" in done.stderr
