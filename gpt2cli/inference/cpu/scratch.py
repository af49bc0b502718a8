"""How much memory the loops work in."""
from gpt2cli.inference.cpu.packed_layout import rounded_up
def padded_rows(m, is_many): return 1 if m == 1 else rounded_up(m, 8)
def scratch_bytes(config, inner, rows): return 1<<20
def step_bytes(rows, inner): return rows*inner//4 + 4096
MANY_ROWS=32
