"""Runs the compiled loops: owns the memory that they work in, and fills the tables that they read."""

import os
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from gpt2cli.config import GPTConfig
from gpt2cli.inference.cpu import pass_table as at
from gpt2cli.inference.cpu.attention_tasks import attention_blocks, attention_scratch, key_size
from gpt2cli.inference.cpu.compiling import loops
from gpt2cli.inference.cpu.huge_pages import Arena
from gpt2cli.inference.cpu.packed_layout import (
    BLOCK_OUTPUTS,
    MATRICES,
    WIDTH_MULTIPLE,
    Matrix,
    block_precision,
    packed_matrix,
    rounded_up,
)
from gpt2cli.inference.cpu.panel_sizes import padded_rows, scratch_size, step_count
from gpt2cli.inference.cpu.thread_team import ThreadTeam

Array = NDArray[Any]
Memory = Sequence[tuple[Array, Array]]
"""Keys and values (B, H, S, key_size) of each layer."""
_BUFFERS = {at.X: "f4", at.NORMED: "f4", at.QKV: "f4", at.INNER: "f4", at.PREPARED: "i2"}


class Passes:
    """Forward passes and logits of one model, in `threads` threads. Only one runs at a time."""

    def __init__(self, config: GPTConfig, precision: str, arrays: Mapping[str, Array], threads: int) -> None:
        self._config, self._arrays = config, arrays
        self._loops = loops(block_precision(precision, config.n_embd))
        steps = config.n_layer * at.STEPS_OF_LAYER + 1  # and the final norm
        self._team, self._turn = ThreadTeam(threads, steps * at.COUNTERS_OF_STEP), Lock()
        C = config.n_embd
        width, inner = rounded_up(C, WIDTH_MULTIPLE), rounded_up(4 * C, WIDTH_MULTIPLE)
        self._columns = {at.X: width, at.NORMED: width, at.QKV: rounded_up(3 * C, BLOCK_OUTPUTS), at.INNER: inner}
        self._columns[at.PREPARED] = inner
        self._buffers: dict[int, Array] = {}  # by the place of their addresses
        self._rows = 0  # for which the buffers have room
        self._table = np.zeros(at.SIZE, np.int64)
        self._describe_model()
        _made.add(self)

    def renew_lock(self) -> None:
        """Let passes run in a child process, whose parent forked while one ran: the lock was copied as it was."""
        self._turn = Lock()

    def forward(self, x: Array, pieces: Array, memory: Memory, is_many: bool) -> Array:
        """Apply all layers and the final norm to the residual stream x (m, C), fp32. Returns a new array (m, C).

        `memory` receives the keys and values of the new tokens. `pieces` (n, 6) says which tokens attend to which: see
        `Piece`. `is_many` says whether to use products of many rows. The caller decides by the length of the sequences
        and not by m, so that a sequence has the same results in any batch.
        """
        m, C = x.shape
        with self._turn:
            self._receive(x)
            table, (keys, _) = self._table, memory[0]
            addresses = np.array([(k.ctypes.data, v.ctypes.data) for k, v in memory], np.int64)
            blocks = attention_blocks(pieces)
            table[at.CACHE_ADDRESSES], table[at.BLOCKS] = addresses.ctypes.data, blocks.ctypes.data
            table[at.CACHE_ROWS], table[at.CAPACITY], table[at.N_BLOCKS] = len(keys), keys.shape[2], len(blocks)
            table[at.ROWS], table[at.IS_MANY] = padded_rows(m, is_many), is_many
            self._team.run(self._loops.forward, self._table)
            normed: Array = self._buffers[at.NORMED][:m, :C].copy()
            return normed

    def head(self, x: Array) -> Array:
        """The logits (m, out) of final hidden states x (m, C), fp32. Their last columns may be padding."""
        m = len(x)
        with self._turn:
            self._receive(x)
            table = self._table
            rows = padded_rows(m, False)
            y = np.empty((rows, self._head[at.OUTPUTS]), np.float32)
            table[at.ROWS], table[at.IS_MANY], table[at.OUT] = rows, False, y.ctypes.data
            self._team.run(self._loops.multiply, self._table)
        return y[:m]

    def _receive(self, x: Array) -> None:
        """Copy x (m, C) to the residual stream, after making room for m rows."""
        m, C = x.shape
        self._make_room(m)
        self._buffers[at.X][:m, :C] = x
        for place in (at.X, at.NORMED):
            self._buffers[place][:m, C:] = 0  # not 0 after a pass whose numbers were infinite

    def _make_room(self, m: int) -> None:
        """Make the buffers large enough for m rows. What lies beyond the rows' ends is 0."""
        rows = padded_rows(m, True)
        if rows <= self._rows:
            return
        self._rows = 0  # until all buffers are made: there may be no memory for some
        arena = Arena()
        for place, kind in _BUFFERS.items():
            self._buffers[place] = arena.zeros((rows, self._columns[place]), np.dtype(kind))
        self._buffers[at.STEPS] = arena.zeros((step_count(rows, self._columns[at.INNER]),), np.float32)
        own = self._own_layout(rows)
        self._buffers[at.OWN] = arena.zeros((self._team.size, own), np.uint8)
        for place, buffer in self._buffers.items():
            self._table[place] = buffer.ctypes.data
        self._rows = rows

    def _own_layout(self, rows: int) -> int:
        """Divide a thread's own memory. Returns its size in bytes."""
        table, config = self._table, self._config
        table[at.OWN_INTEGERS] = 4 * self._columns[at.X]
        table[at.OWN_STEPS] = table[at.OWN_INTEGERS] + 2 * self._columns[at.INNER]
        table[at.OWN_SCRATCH] = table[at.OWN_STEPS] + at.COUNTER_BYTES
        scratch = max(attention_scratch(config.block_size, config.head_size), scratch_size(rows))
        size = table[at.OWN_SCRATCH] + 4 * scratch
        table[at.OWN_BYTES] = rounded_up(int(size), 4096)
        return int(table[at.OWN_BYTES])

    def _describe_model(self) -> None:
        """Fill the parts of the table that are the same for all passes."""
        config, table, arrays = self._config, self._table, self._arrays
        self._epsilon = np.array([config.layer_norm_epsilon], np.float32)
        self._layers = np.zeros((config.n_layer, at.LAYER_SIZE), np.int64)
        for layer, record in enumerate(self._layers):
            record[at.LN_1], record[at.LN_2] = (arrays[f"h.{layer}.{norm}"].ctypes.data for norm in ("ln_1", "ln_2"))
            for start, name in zip((at.C_ATTN, at.ATTN_C_PROJ, at.C_FC, at.MLP_C_PROJ), MATRICES, strict=True):
                record[start : start + at.MATRIX_SIZE] = self._matrix_record(f"h.{layer}.{name}")
        self._head = self._matrix_record("wte" if config.tied else "lm_head")
        table[at.LAYERS], table[at.MATRIX] = config.n_layer, self._head.ctypes.data
        table[at.LAYER_RECORDS], table[at.EPSILON] = self._layers.ctypes.data, self._epsilon.ctypes.data
        table[at.FINAL_NORM], table[at.N_EMBD] = arrays["ln_f"].ctypes.data, config.n_embd
        table[at.WIDTH], table[at.QKV_WIDTH] = self._columns[at.X], self._columns[at.QKV]
        table[at.INNER_WIDTH], table[at.HEADS] = self._columns[at.INNER], config.n_head
        table[at.KEY_SIZE] = key_size(config.head_size)

    def _matrix_record(self, name: str) -> Array:
        matrix: Matrix = packed_matrix(self._arrays, name)
        record = np.zeros(at.MATRIX_SIZE, np.int64)
        record[at.WEIGHTS], record[at.GROUPS] = matrix.weights.ctypes.data, matrix.groups.ctypes.data
        record[at.SCALE], record[at.BIAS] = matrix.scale.ctypes.data, matrix.bias.ctypes.data
        record[at.STEP] = matrix.step.ctypes.data
        record[at.OUTPUTS], record[at.WEIGHT_COLUMNS] = matrix.weights.shape
        record[at.GROUP_ROWS], record[at.GROUP_COLUMNS] = matrix.groups.shape
        return record


_made: WeakSet[Passes] = WeakSet()


def _renew_locks() -> None:
    for passes in _made:
        passes.renew_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
