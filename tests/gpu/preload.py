"""Imports what the steps need, once: their processes are copies of one that imported this module.

So no step waits for imports, and none is timed while another one's imports occupy the processor.
"""

import contextlib

from tests.gpu import card, commands, finetuning, numerics, profiling, speed_decode, speed_train  # noqa: F401

with contextlib.suppress(ImportError):
    from transformers import GPT2LMHeadModel, Trainer  # noqa: F401
with contextlib.suppress(ImportError):
    import peft  # noqa: F401
