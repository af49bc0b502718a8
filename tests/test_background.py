"""Work in the background ends before the process, tells its result once, and can be abandoned."""

import subprocess
import sys
import threading
import weakref

import pytest

from gpt2cli import background
from tests.runner import PATIENCE, clean_environment


def test_finish_waits_and_tells_each_result_once():
    ready, told = threading.Event(), []

    def work(go_on):
        ready.wait(PATIENCE)
        return "done"

    background.start(work, told.append)
    background.start(lambda go_on: None, told.append)
    assert told == []
    ready.set()
    background.finish()
    background.finish()
    assert told == ["done"]


def test_abandoned_work_ends_without_a_result(monkeypatch):
    told, cleaned = [], []

    def work(go_on):
        try:
            while True:
                go_on()
        finally:
            cleaned.append(True)

    monkeypatch.setattr(background, "DELAY", 0)
    begun = threading.Event()
    background.start(lambda go_on: begun.set() or work(go_on), told.append)
    begun.wait(PATIENCE)
    background.abandon()
    background.finish()
    assert (told, cleaned) == ([], [True])


def test_work_begins_by_itself_and_is_not_begun_once_it_is_abandoned(monkeypatch):
    begun = threading.Event()
    background.start(lambda go_on: begun.set(), print)
    background.abandon()
    background.finish()
    assert not begun.is_set()
    monkeypatch.setattr(background, "DELAY", 0.05)
    background.start(lambda go_on: begun.set(), print)
    assert begun.wait(PATIENCE)
    background.finish()


def test_what_was_worked_on_is_not_held():
    class Large:
        pass

    large = Large()
    seen = weakref.ref(large)
    background.start(lambda go_on, large=large: "done", lambda text: None)
    del large
    background.finish()
    assert seen() is None


@pytest.mark.parametrize("last", ["", "raise SystemExit(3)"])
def test_a_process_ends_after_the_work_and_does_not_wait_for_its_beginning(last):
    code = f"""
import time
from gpt2cli import background
background.DELAY = {10 * PATIENCE}
def work(go_on):
    time.sleep(0.2)
    print("written")
background.start(work, print)
{last}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean_environment())
    assert (done.stdout, done.stderr, done.returncode) == ("written\n", "", 3 if last else 0)
