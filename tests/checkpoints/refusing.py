"""What must happen to a file that cannot be opened: an error of one short line, before much is computed."""

import time
from pathlib import Path

import pytest

from gpt2cli.checkpoints.load import load_plain
from gpt2cli.errors import CheckpointError


def refused(path: Path, match: str) -> None:
    """Open a checkpoint, and see it refused with a message that `match` is found in."""
    start = time.process_time()
    with pytest.raises(CheckpointError, match=match) as error:
        load_plain(ckpt=path)
    assert time.process_time() - start < 2  # a tenth of that, unless the machine is busy
    assert len(str(error.value)) < 1_000 + len(str(path))
