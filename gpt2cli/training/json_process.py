"""A Python process beside this one that takes lines of JSON on its stdin and answers with such lines on its stdout."""

import json
import queue
import subprocess
import sys
import threading
from contextlib import suppress
from typing import IO, Any

from gpt2cli import untrusted

MAX_WAITING = 10_000  # messages held for a process that does not read them
KILL_SECONDS = 5.0  # for a killed process to be gone

Message = dict[str, Any]


class JsonProcess:
    """Runs Python code beside this process, and never lets it wait: two threads tend the pipes.

    Raises OSError if the process cannot be started.
    """

    def __init__(self, code: str) -> None:
        # with the imports of this very process, wherever they come from
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # Ctrl-C at the terminal is not for it
        )
        self._outbox: queue.Queue[Message | None] = queue.Queue(MAX_WAITING)
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        for work, pipe in ((self._write, self._process.stdin), (self._read, self._process.stdout)):
            threading.Thread(target=work, args=(pipe,), daemon=True).start()

    def send(self, message: Message) -> bool:
        """Whether the message could be taken, to be written as soon as the process reads."""
        with suppress(queue.Full):
            self._outbox.put_nowait(message)
            return True
        return False

    def end(self) -> None:
        """Nothing more comes, and the process is to leave."""
        with suppress(queue.Full):
            self._outbox.put_nowait(None)

    def reply(self, seconds: float) -> Message | None:
        """The next reply, waiting for it so long."""
        with suppress(queue.Empty):
            return self._inbox.get(timeout=seconds) if seconds else self._inbox.get_nowait()
        return None

    def stop(self, patience: float) -> None:
        """End the process, whatever it does, unless it ends by itself within so many seconds."""
        self.end()
        for seconds in (patience, KILL_SECONDS):
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
                break
            self._process.kill()

    def _write(self, pipe: IO[bytes]) -> None:
        with suppress(OSError), pipe:
            while (message := self._outbox.get()) is not None:
                line = json.dumps(message, default=str).encode() + b"\n"
                while line:
                    line = line[pipe.write(line) :]

    def _read(self, pipe: IO[bytes]) -> None:
        with suppress(OSError, ValueError), pipe:
            for line in pipe:
                message = untrusted.parse_json(line)
                self._inbox.put(
                    message
                    if isinstance(message, dict)
                    else {"failed": "its process sent a message that cannot be read"}
                )
        self._inbox.put({"failed": "its process ended"})
