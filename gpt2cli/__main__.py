"""The `gpt2` command, and `python -m gpt2cli`: so little of it that a Ctrl-C while the rest is imported is heard."""

import os
import sys

# Threads of GNU's OpenMP, which PyTorch and Numba compute with, wait for each other in a loop that lasts milliseconds.
# Where another program wants the processor too, that makes them a hundred times slower, and nothing is lost with less.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def main() -> None:
    try:
        from gpt2cli.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
