"""A Python process that receives lines of JSON on its stdin and replies with lines of JSON on its stdout."""

import json
import queue
import subprocess
import sys
import threading
from contextlib import suppress
from typing import IO, Any

from gpt2cli import untrusted

MAX_WAITING = 10_000  # messages in the queue for a process that does not read them
KILL_SECONDS = 5.0  # for a killed process to end

Message = dict[str, Any]


class JsonProcess:
    """Runs Python code in another process. Two threads read and write the pipes, so that the caller never waits.

    Raises OSError if the process cannot be started.
    """

    def __init__(self, code: str) -> None:
        # with the sys.path of this process, so that it imports the same modules
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # Ctrl-C at the terminal does not reach it
        )
        self._outbox: queue.Queue[Message | None] = queue.Queue(MAX_WAITING)
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        for work, pipe in ((self._write, self._process.stdin), (self._read, self._process.stdout)):
            threading.Thread(target=work, args=(pipe,), daemon=True).start()

    def send(self, message: Message) -> bool:
        """Put a message into the queue. Returns False if the queue is full."""
        with suppress(queue.Full):
            self._outbox.put_nowait(message)
            return True
        return False

    def end(self) -> None:
        """Close the stdin of the process after the last message."""
        with suppress(queue.Full):
            self._outbox.put_nowait(None)

    def reply(self, seconds: float) -> Message | None:
        """The next reply; None if there is none within `seconds`."""
        with suppress(queue.Empty):
            return self._inbox.get(timeout=seconds)
        return None

    def stop(self, patience: float) -> None:
        """Kill the process, unless it ends by itself within `patience` seconds."""
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
