"""Runs the compiled loops: keeps the memory that they work in, and fills the tables that they read."""

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt2cli.config import GPTConfig
from gpt2cli.inference.cpu import pass_table as at
from gpt2cli.inference.cpu.compiling import Loops, loops
from gpt2cli.inference.cpu.huge_pages import Arena
from gpt2cli.inference.cpu.packed_layout import (
    MATRICES,
    WEIGHT_TYPES,
    WIDTH_MULTIPLE,
    BLOCK_OUTPUTS,
    Matrix,
    packed_matrix,
    padded_rows,
    rounded_up,
)
from gpt2cli.inference.cpu.thread_team import ThreadTeam

Arrays = Mapping[str, NDArray[Any]]
Memory = Sequence[tuple[NDArray[Any], NDArray[Any]]]
"""Keys and values (B, H, S, key_size) of each layer."""
MANY_ROWS = 32
"""From this sequence length on, products of many rows are faster."""


class Passes:
    """Forward passes and products of one model. Only one runs at a time."""

    def __init__(self, config: GPTConfig, precision: str, arrays: Arrays, threads: int) -> None:
        self._config, self._precision, self._arrays = config, precision, arrays
        self._team, self._turn = ThreadTeam(threads), Lock()
        self._loops: Loops | None = None
        C = config.n_embd
        width, inner = rounded_up(C, WIDTH_MULTIPLE), rounded_up(4 * C, WIDTH_MULTIPLE)
        self._widths = {at.X: width, at.NORMED: width, at.QKV: rounded_up(3 * C, BLOCK_OUTPUTS), at.INNER: inner}
        self._kept: dict[int, NDArray[Any]] = {}  # by the place of their addresses in the table
        self._table = np.zeros(at.SIZE, np.int64)
        self._counters = np.zeros((2, (config.n_layer + 1) * at.COUNTERS_OF_LAYER, at.COUNTER_BYTES // 8), np.int64)
        self._fill_table()
        self._capacity = 0  # rows for which there is memory
