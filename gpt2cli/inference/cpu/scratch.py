"""How much memory the loops work in."""

from gpt2cli.config import GPTConfig
from gpt2cli.inference.cpu.attention_tasks import QUERY_TILE, key_size, score_row
from gpt2cli.inference.cpu.packed_layout import BLOCK_OUTPUTS, TILE_ROWS, rounded_up
from gpt2cli.inference.cpu.processor import LANES

MANY_ROWS = 32
"""From this sequence length on, products of many rows are faster."""
TILE_OF_MANY = 8
"""The number of rows of a product of many rows is a multiple of this."""
SMALLEST_SEGMENT = 32
def padded_rows(m: int, is_many: bool) -> int:
    """The number of rows to which m rows of activations are padded."""
    return 1 if m == 1 and not is_many else rounded_up(m, TILE_OF_MANY if is_many else TILE_ROWS)
def scratch_bytes(config, inner, rows):
    from gpt2cli.inference.cpu.panels import scratch_rows
    attention = LANES + QUERY_TILE * (key_size(config.head_size) + score_row(config.block_size))
    return 4 * max(attention, scratch_rows(rows) * BLOCK_OUTPUTS)
def step_bytes(rows, inner): return 4 * rows * inner // SMALLEST_SEGMENT
