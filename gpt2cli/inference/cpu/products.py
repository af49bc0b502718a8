"""One product of a pass, as every thread runs it: it takes blocks of outputs until none is left.

Imported only to compile.
"""

from typing import Any

import numpy as np

from gpt2cli.inference.cpu import pass_table as at
from gpt2cli.inference.cpu.compiler.functions import called, inlined
from gpt2cli.inference.cpu.elementwise import round_rows
from gpt2cli.inference.cpu.matmul import largest_integer, multiply_few_rows, multiply_one_row
from gpt2cli.inference.cpu.matmul_many_rows import multiply_many_rows
from gpt2cli.inference.cpu.packed_layout import BLOCK_OUTPUTS, Matrix
from gpt2cli.inference.cpu.panel_sizes import PANEL_OUTPUTS, SEGMENTS
from gpt2cli.inference.cpu.rounded_rows import prepare_rows
from gpt2cli.inference.cpu.shared_memory import array_at, next_tasks, wait_for_all


@called
def product(t: Any, record: Any, kind: Any, x: Any, y: Any, epilogue: int, counter: int, thread: int) -> None:
    """Write x (ROWS, in) @ matrix.T to y (ROWS, out), then wait for all threads.

    `kind` is the type of the matrix's weights. `counter` is the address of three counters.
    """
    matrix = _matrix_at(record, kind)
    if t[at.ROWS] == 1:
        _one_row(t, matrix, x, y, epilogue, counter, thread)
    elif t[at.IS_MANY]:
        _many_rows(t, matrix, x, y, epilogue, counter, thread)
    else:
        _few_rows(t, matrix, x, y, epilogue, counter, thread)
    wait_for_all(counter + 2 * at.COUNTER_BYTES, t[at.THREADS])


@inlined
def _matrix_at(record: Any, kind: Any) -> Matrix:
    """The matrix that a record describes."""
    outputs = record[at.OUTPUTS]
    weights = array_at(record[at.WEIGHTS], (outputs, record[at.WEIGHT_COLUMNS]), kind)
    groups = array_at(record[at.GROUPS], (record[at.GROUP_ROWS], record[at.GROUP_COLUMNS]), np.uint16)
    scale = array_at(record[at.SCALE], (outputs,), np.float32)
    bias = array_at(record[at.BIAS], (outputs,), np.float32)
    step = array_at(record[at.STEP], (outputs,), np.float32)
    return Matrix(weights, groups, scale, bias, step)


@called
def _one_row(t: Any, matrix: Matrix, x: Any, y: Any, epilogue: int, counter: int, thread: int) -> None:
    """Each thread prepares the row for itself, which takes less time than to wait for another one."""
    own = own_memory(t, thread)
    integers = array_at(own + t[at.OWN_INTEGERS], (1, x.shape[1]), np.int16)
    steps = array_at(own + t[at.OWN_STEPS], (1,), np.float32)
    row = prepared(matrix, x, integers)
    round_for(matrix, x, integers, steps, 0, 1)
    blocks = len(matrix.scale) // BLOCK_OUTPUTS
    size = max(1, blocks // (8 * t[at.THREADS]))
    first = next_tasks(counter, size)
    while first < blocks:
        last = min(blocks, first + size)
        multiply_one_row(matrix, row, steps, y, epilogue, first * BLOCK_OUTPUTS, last * BLOCK_OUTPUTS)
        first = next_tasks(counter, size)


@called
def _few_rows(t: Any, matrix: Matrix, x: Any, y: Any, epilogue: int, counter: int, thread: int) -> None:
    """A thread takes its next block early, because it fetches that block while it computes the one before."""
    m, threads = t[at.ROWS], t[at.THREADS]
    integers, steps = array_at(t[at.PREPARED], (m, x.shape[1]), np.int16), array_at(t[at.STEPS], (m,), np.float32)
    rows = prepared(matrix, x, integers)
    first, last = share(m, threads, thread)
    round_for(matrix, x, integers, steps, first, last)
    wait_for_all(counter + at.COUNTER_BYTES, threads)
    blocks = len(matrix.scale) // BLOCK_OUTPUTS
    block = next_tasks(counter, 1)
    while block < blocks:
        following = next_tasks(counter, 1)
        multiply_few_rows(matrix, rows, steps, y, epilogue, block * BLOCK_OUTPUTS, following * BLOCK_OUTPUTS)
        block = following


@called
def _many_rows(t: Any, matrix: Matrix, x: Any, y: Any, epilogue: int, counter: int, thread: int) -> None:
    m, width, threads = t[at.ROWS], x.shape[1], t[at.THREADS]
    integers = array_at(t[at.PREPARED], (m, width), np.int16)
    steps = array_at(t[at.STEPS], (m, width // SEGMENTS[matrix.weights.dtype.name]), np.float32)
    rows = x if matrix.weights.dtype == np.float32 else integers
    first, last = share(m, threads, thread)
    prepare_rows(matrix, x, rows, steps, first, last)
    wait_for_all(counter + at.COUNTER_BYTES, threads)
    own_rows = (t[at.OWN_BYTES] - t[at.OWN_SCRATCH]) // (4 * BLOCK_OUTPUTS)
    own = array_at(own_memory(t, thread) + t[at.OWN_SCRATCH], (own_rows, BLOCK_OUTPUTS), np.float32)
    outputs = len(matrix.scale)
    first = PANEL_OUTPUTS * next_tasks(counter, 1)
    while first < outputs:
        multiply_many_rows(matrix, rows, steps, y, epilogue, first, min(outputs, first + PANEL_OUTPUTS), own)
        first = PANEL_OUTPUTS * next_tasks(counter, 1)


@inlined
def share(count: int, threads: int, thread: int) -> Any:
    """A thread's part of `count` rows: the first row, and the one after the last."""
    return count * thread // threads, count * (thread + 1) // threads


@inlined
def own_memory(t: Any, thread: int) -> Any:
    """The address of a thread's own memory."""
    return t[at.OWN] + t[at.OWN_BYTES] * thread


@inlined
def prepared(matrix: Matrix, x: Any, integers: Any) -> Any:
    """The array that a matrix is multiplied by: x itself, or `integers`, which receives x rounded."""
    return integers if takes_integers(matrix) else x


@inlined
def round_for(matrix: Matrix, x: Any, integers: Any, steps: Any, first: int, last: int) -> None:
    """Write rows of x, rounded for a matrix of integers, to `integers` and `steps`. Otherwise do nothing."""
    if takes_integers(matrix):
        round_rows(x[first:last], largest_integer(matrix, x.shape[1]), integers[first:last], steps[first:last])


@inlined
def takes_integers(matrix: Matrix) -> Any:
    """Whether the weights of a matrix are multiplied by integers."""
    return matrix.weights.dtype == np.int8 or matrix.weights.dtype == np.uint8
