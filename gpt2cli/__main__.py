"""The `gpt2` command, and `python -m gpt2cli`: so little of it that a Ctrl-C while the rest is imported is heard."""

import sys


def main() -> None:
    try:
        from gpt2cli.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
