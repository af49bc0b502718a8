"""The default number of threads."""

import os

import pytest

from gpt2cli.inference.cpu.thread_count import default_threads


def test_it_is_at_most_what_the_process_may_use(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert 1 <= default_threads() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(("asked", "count"), [("3", 3), ("2,4", 2)])
def test_the_environment_decides(monkeypatch, asked, count):
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert default_threads() == count


@pytest.mark.parametrize("asked", ["", "0", "-1", "many"])
def test_what_is_no_number_does_not(monkeypatch, asked):
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    found = default_threads()
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert found == default_threads()
