"""How products of many rows are divided, and the memory that they need. See `panels.py` and `rounded_rows.py`."""

from gpt2cli.inference.cpu.packed_layout import TILE_ROWS, rounded_up
from gpt2cli.inference.cpu.processor import LANES
from gpt2cli.model.quantization import GROUP

MANY_ROWS = 32
"""From this sequence length on, panels are faster."""
MANY_ROWS_MULTIPLE = 8
"""The number of rows of a product of many rows is a multiple of this."""
SEGMENTS = {"float32": 64, "uint16": 32, "int16": 32, "int8": 64, "uint8": GROUP}
"""Neighbouring activations that share a scale, by the type of the weights. Those for fp32 have none."""
PANEL_OUTPUTS = 2 * LANES
"""Outputs of a panel."""
PANEL_ROWS = 128
"""Rows of a panel. With 32 outputs, it takes 16 KiB, half of a processor's first cache."""
PANEL_GROUPS = 2 * PANEL_ROWS // GROUP
"""Groups of int4 in a panel."""
SCALES_START = PANEL_ROWS * PANEL_OUTPUTS
"""Numbers in a thread's scratch memory before the scales of groups."""
SUMS_START = SCALES_START + PANEL_GROUPS * PANEL_OUTPUTS
"""Numbers in a thread's scratch memory before the sums."""


def padded_rows(m: int, is_many: bool) -> int:
    """The number of rows to which m rows of activations are padded."""
    if is_many:
        return rounded_up(m, MANY_ROWS_MULTIPLE)
    return 1 if m == 1 else rounded_up(m, TILE_ROWS)


def scratch_size(m: int) -> int:
    """The numbers in fp32 that a thread needs for products of m rows."""
    return SUMS_START + m * PANEL_OUTPUTS


def step_count(m: int, width: int) -> int:
    """The most scales of m rows of `width` activations."""
    return max(m, m * width // min(SEGMENTS.values()))
