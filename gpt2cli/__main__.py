"""The `gpt2` command as a process: signals, streams and the exit code. Also run by `python -m gpt2cli`."""

import os
import sys
from threading import Thread

LONGEST_END = 1.0
"""The most seconds that the process waits for a reader of its output after a signal."""


def main() -> None:
    # PyTorch's compiler (`finetune --compile`) would show warnings that are meant for those who develop it
    os.environ.setdefault("TORCH_LOGS", "-dynamo,-inductor")
    try:  # Ctrl-C may arrive during these imports, which take time
        from gpt2cli.cli.environment import Environment
        from gpt2cli.cli.interrupts import install_handlers, remove_handlers
        from gpt2cli.cli.main import main as run

        environment = Environment.of_process()
        install_handlers()
        code = run(sys.argv[1:], environment)
        remove_handlers()
        closing = Thread(target=environment.close, daemon=True)
        closing.start()
        closing.join(LONGEST_END if code > 128 else None)
        if closing.is_alive():  # nobody reads the output: `sys.exit` would wait for the thread that writes it
            os._exit(code)
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
