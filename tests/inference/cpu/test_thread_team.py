"""Threads run a loop together: the results are the same for each number, and nothing makes a process hang."""

import dataclasses
import gc
import itertools
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from gpt2cli.inference import decoder
from gpt2cli.inference.cpu import pass_table as at
from gpt2cli.inference.cpu import thread_team
from gpt2cli.inference.cpu.thread_team import ThreadTeam
from gpt2cli.inference.cpu.weight_packing import pack_model
from gpt2cli.inference.cpu_decoder import CPUDecoder
from gpt2cli.inference.decoder import PRECISIONS
from tests import models
from tests.runner import clean_environment

pytestmark = pytest.mark.skipif(not decoder.has_kernels(), reason="no loops for this processor")
IDS = np.random.default_rng(0).integers(0, 50257, (3, 36))
PROGRAM = """
import os, threading
import numpy as np
from tests import models
ours = models.packed(models.small_model(), "fp32", threads=3)
ids = np.array([[1, 2, 3]])
expected = ours(ids)
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(ours(ids), expected) and np.array_equal(ours(ids), expected) else 1)
print(os.waitpid(child, 0)[1], np.array_equal(ours(ids), expected))
def compute():
    while True:
        ours(ids)
threading.Thread(target=compute, daemon=True).start()
ours(ids)
for _ in range(5):
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(ours(ids), expected) else 1)
    print(os.waitpid(child, 0)[1])
raise SystemExit(7)
"""


def everything(model):
    """The logits of one token, of few and of many."""
    cache = model.new_cache(1, 3)
    one = [model.head(model.hidden(IDS[:1, t : t + 1], cache)) for t in range(3)]
    return np.concatenate([logits.ravel() for logits in (*one, model(IDS[:, :5]), model(IDS))])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_each_number_of_threads_gives_the_same_bits(precision):
    model = models.small_model()
    one, two, three = (everything(models.packed(model, precision, threads)) for threads in (1, 2, 3))
    assert np.array_equal(one, two)
    assert np.array_equal(one, three)


def test_threads_of_python_take_turns_with_one_decoder_and_run_beside_each_other_with_two():
    model = models.small_model()
    first, second = models.packed(model, "fp16", 2), models.packed(model, "fp16", 2)
    expected = everything(first)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(everything, [first, second, first, second, first, first]))
    assert all(np.array_equal(logits, expected) for logits in found)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_process_may_fork_and_may_end_while_its_threads_compute():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, env=clean_environment()
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (7, ["0", "True", *5 * ["0"]], "")


def test_an_error_leaves_the_decoder_as_it_was():
    ours = models.packed(models.small_model(), "fp32", 2)
    expected = ours([[1, 2, 3]])
    with pytest.raises(IndexError):
        ours([[1, 50257]])
    assert np.array_equal(ours([[1, 2, 3]]), expected)


def test_after_too_little_memory_the_old_buffers_are_not_used(monkeypatch):
    ours = models.packed(models.small_model(), "fp32", 2)
    expected = ours([[1, 2, 3]])
    calls = iter(range(100))

    def some(self, shape, dtype):
        if next(calls) == 3:
            raise MemoryError
        return np.zeros(shape, dtype)

    with monkeypatch.context() as patch:
        patch.setattr("gpt2cli.inference.cpu.huge_pages.Arena.zeros", some)
        with pytest.raises(MemoryError):
            ours(IDS)
    assert np.array_equal(ours([[1, 2, 3]]), expected)
    assert len(ours(IDS)) == 3


def test_ctrl_c_at_any_instruction_leaves_no_thread_waiting():
    """As in a conversation: the interrupted answer ends, and the next one begins."""
    team, calls, table = ThreadTeam(3), [], np.zeros(at.SIZE, np.int64)
    counters = [0]  # addresses: a thread may still read those of the loop before
    all_there = threading.Barrier(3)

    def loop(address, number):
        all_there.wait(60)
        calls.append(number)
        if number == 0:
            assert table[at.COUNTERS] != counters[0]
            counters[0] = table[at.COUNTERS]
        all_there.wait(60)

    def interrupted(instruction):
        """Run the loop, with an interrupt before this instruction of `run`. Returns False if there are not so many."""
        instructions = iter(range(instruction))

        def trace(frame, event, value):
            if event == "opcode" and next(instructions, None) is None:
                sys.settrace(None)
                raise KeyboardInterrupt
            return trace

        def trace_run(frame, event, value):
            if frame.f_code is not ThreadTeam.run.__code__:
                return None
            frame.f_trace_opcodes = True
            return trace

        sys.settrace(trace_run)
        try:
            team.run(loop, table)
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(None)
        return False

    team.run(loop, table)
    for instruction in itertools.count():
        is_over = not interrupted(instruction)
        calls.clear()
        team.run(loop, table)
        assert sorted(calls) == [0, 1, 2]
        if is_over:
            break
    assert instruction > 20


def test_a_pass_with_infinite_numbers_leaves_nothing_behind():
    """The width of this model is no multiple of what rows are padded to."""
    model = models.small_model(dataclasses.replace(models.SMALL, n_head=3, n_embd=39))
    arrays = dict(pack_model(model.config, models.ModelWeights(model), "fp32"))
    arrays["wpe"][5] = np.inf
    ours = CPUDecoder(model.config, model.origin, "fp32", arrays, 2)
    expected = ours(IDS[:, :5])
    assert np.isnan(ours(IDS[:, :6])).any()
    assert np.array_equal(ours(IDS[:, :5]), expected)


def test_a_team_that_could_not_start_starts_anew(monkeypatch):
    calls, table = [], np.zeros(at.SIZE, np.int64)
    done = threading.Barrier(3)

    def loop(address, number):
        calls.append(number)
        done.wait(60)

    def refused(*args, **options):
        raise RuntimeError("can't start new thread")

    team = ThreadTeam(3)
    with monkeypatch.context() as patch:
        patch.setattr(thread_team, "Thread", refused)
        with pytest.raises(RuntimeError, match="can't start"):
            team.run(loop, table)
    for _ in range(2):
        team.run(loop, table)
    assert sorted(calls) == [0, 0, 1, 1, 2, 2]


def test_threads_end_with_their_team():
    before = set(threading.enumerate())
    model = models.packed(models.small_model(), "fp32", 3)
    model([[1]])
    started = set(threading.enumerate()) - before
    assert len(started) == 2
    del model
    gc.collect()
    for thread in started:
        thread.join(60)
        assert not thread.is_alive()
