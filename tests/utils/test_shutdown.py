"""A process that receives a signal ends in good order."""

import os
import signal
import time
from contextlib import suppress

import pytest

from liverseg.utils.shutdown import GracefulShutdown, preserve_signal_handlers

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def default_signal_handlers():
    """Restore default signal handlers as for a command of a terminal, since the tests may run with ignored signals."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in NUMBERS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_handler_that_a_library_sets_meanwhile_is_replaced(number):
    with GracefulShutdown() as shutdown:
        signal.signal(number, lambda *_: pytest.fail("the library's"))
        with shutdown.on_signal(lambda: None):
            signal.raise_signal(number)
    assert shutdown.signal == number


def test_what_hangs_is_broken_off_by_a_later_signal(monkeypatch):
    monkeypatch.setattr("liverseg.utils.shutdown._CLEANUP_SECONDS", 0.05)
    with pytest.raises(SystemExit), GracefulShutdown():
        with suppress(SystemExit):  # ignored, as in a __del__
            signal.raise_signal(signal.SIGTERM)
        time.sleep(0.1)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it goes on")


def test_a_second_signal_does_not_interrupt_the_handling_of_the_first():
    steps = []
    with pytest.raises(SystemExit) as ended, GracefulShutdown():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            steps.append("in order")
    assert (ended.value.code, steps) == (128 + signal.SIGTERM, ["in order"])


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_ends_what_is_going_on(number, capsys):
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended, GracefulShutdown():
        signal.raise_signal(number)
    assert ended.value.code == 128 + number
    assert capsys.readouterr().err == f"liverseg: ended by {number.name}\n"
    assert signal.getsignal(number) == before


def test_a_signal_does_what_it_is_to_do_instead(capsys):
    done = []
    with GracefulShutdown() as shutdown, shutdown.on_signal(lambda: done.append(shutdown.signal)):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    assert done == [signal.SIGTERM, signal.SIGTERM]  # the first signal ended it
    assert capsys.readouterr().err == ""
    with pytest.raises(SystemExit), GracefulShutdown() as shutdown:
        with shutdown.on_signal(done.clear):
            pass
        signal.raise_signal(signal.SIGTERM)
    assert done


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup starts its command
    try:
        with GracefulShutdown() as shutdown:
            signal.raise_signal(signal.SIGHUP)
        assert shutdown.signal is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_forked_process_ends_at_once(capfd):
    with GracefulShutdown():
        child = os.fork()
        if child == 0:
            signal.raise_signal(signal.SIGTERM)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 128 + signal.SIGTERM
    assert capfd.readouterr().err == ""


def test_handlers_are_kept_from_a_library():
    with GracefulShutdown() as shutdown, shutdown.on_signal(lambda: None):
        with preserve_signal_handlers():
            signal.signal(signal.SIGTERM, lambda *_: pytest.fail("the library's"))
        signal.raise_signal(signal.SIGTERM)
    assert shutdown.signal == signal.SIGTERM
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
