"""Weights & Biases: the only place that knows of it.

Its client can hang, raise, print, and linger at exit, so it runs in a process of its own: what goes wrong there costs
the run one note and nothing else. Events go to that process as lines of JSON on its stdin, and it answers on its
stdout that it is ready, has finished, or has failed. When the training process dies, its stdin ends, and so does it.
"""

import json
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from gpt2cli import atomic
from gpt2cli.training.events import Evaluated, Event, Finished, Sampled, Step
from gpt2cli.training.json_process import JsonProcess, Message

if TYPE_CHECKING:
    import wandb

INIT_SECONDS = 20.0  # for W&B to begin a run, once its client is imported
START_SECONDS = INIT_SECONDS + 10
FINISH_SECONDS = 15.0
CLEANUP_SECONDS = 5.0  # for its client to go, once it has finished


class WandbTracker:
    """Sends a run's events to W&B, or stops trying, with one note.

    project   the project's name at W&B
    config    the run's settings
    run_dir   the client's files go to `wandb/` in it, and the run's id, under which a resumed run goes on
    run_id    the id to take; None takes the one in `run_dir`, or makes a new one
    mode      `online`, `offline` or `disabled`; None goes by WANDB_MODE, and is online without it
    note      is told, in the thread that calls `handle` or `close`, why there is no more tracking
    """

    def __init__(
        self,
        project: str,
        config: Mapping[str, Any],
        run_dir: Path,
        run_id: str | None = None,
        mode: str | None = None,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._note = note
        self._deadline = time.monotonic() + START_SECONDS
        self._ready = False
        self._client: JsonProcess | None = None  # None: off
        try:
            self.run_id = keep_id(run_dir, run_id)
            self._client = JsonProcess("from gpt2cli.training.tracking import serve; serve()")
        except OSError as error:
            self._give_up(str(error))
            return
        begin = {"project": project, "config": dict(config), "dir": str(run_dir.absolute()), "id": self.run_id}
        self._client.send(begin | {"mode": mode, "pid": os.getpid()})

    def __enter__(self) -> "WandbTracker":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def handle(self, event: Event) -> None:
        """Pass one event on. Never waits, never raises."""
        message = as_message(event)
        if self._client and message and not self._client.send(message):
            self._give_up("it does not keep up")
        while self._client and (reply := self._client.reply(0)):
            self._heed(reply)
        if self._client and not self._ready and time.monotonic() > self._deadline:
            self._give_up(f"no answer in {START_SECONDS:.0f} s")

    def close(self) -> None:
        """End the run at W&B: waits for that, but not for long."""
        if not self._client:
            return
        self._client.end()
        try:
            if not self._ready:
                self._await(self._deadline, f"no answer in {START_SECONDS:.0f} s")
            late = f"it did not finish in {FINISH_SECONDS:.0f} s, `wandb sync` can send what it lacks"
            self._await(time.monotonic() + FINISH_SECONDS, late)
            self._stop(patience=CLEANUP_SECONDS)
        finally:
            self._stop()

    def _await(self, deadline: float, late: str) -> None:
        """Wait for the one reply that is due."""
        if self._client:
            if reply := self._client.reply(max(0.0, deadline - time.monotonic())):
                self._heed(reply)
            else:
                self._give_up(late)

    def _heed(self, reply: Message) -> None:
        self._ready = True
        if "failed" in reply:
            # it leaves by itself, after clearing away what it had in the temporary directory
            self._client, client = None, self._client
            if client:
                client.end()
            self._tell(reply["failed"])

    def _give_up(self, why: str) -> None:
        self._stop()
        self._tell(why)

    def _tell(self, why: str) -> None:
        self._note(f"wandb: {' '.join(why.split()).rstrip('.')[:300]}; the run goes on without it")

    def _stop(self, patience: float = 0.0) -> None:
        client, self._client = self._client, None
        if client:
            client.stop(patience)


def keep_id(run_dir: Path, run_id: str | None) -> str:
    """The run's id at W&B, the given one, the one kept in the directory, or a new one; kept there from now on."""
    file = run_dir / "wandb" / "run_id"
    if run_id is None and file.exists():
        return file.read_text(encoding="utf-8").strip()
    file.parent.mkdir(parents=True, exist_ok=True)
    run_id = run_id or secrets.token_hex(4)
    atomic.write_text(file, run_id + "\n")
    return run_id


def as_message(event: Event) -> Message | None:
    """What W&B is told of an event: metrics by step, a table of answers, or the summary; None for nothing."""
    fields = asdict(event)
    match event:
        case Step():
            return {"step": fields.pop("step"), "metrics": fields}
        case Evaluated():
            return {"step": event.step, "metrics": {"val_loss": event.val_loss, "tokens_seen": event.tokens_seen}}
        case Sampled():
            return {"step": event.step, "answers": [[event.step, *pair] for pair in event.answers]}
        case Finished():
            return {"summary": fields}
    return None


def serve() -> None:
    """Be the client's process: begin a run, log what comes on stdin, finish when it ends."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: None)  # the training process says when it is over
    # private copies of the pipes: the client and the service that it starts get /dev/null in their place
    inbox = os.fdopen(os.dup(0), encoding="utf-8")
    outbox = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)

    def reply(message: Message) -> None:
        with suppress(OSError):
            outbox.write(json.dumps(message) + "\n")

    # nobody else ends this process if the training process was killed
    guard = threading.Timer(FINISH_SECONDS, os._exit, (1,))
    guard.daemon = True
    try:
        run = begin(json.loads(inbox.readline()))
        reply({"state": "ready"})
        exit_code = 1  # for W&B: the run crashed, unless its summary says how it ended
        for line in inbox:
            message = json.loads(line)
            exit_code = 0 if "summary" in message else exit_code
            log(run, message)
        guard.start()
        run.finish(exit_code=exit_code)
        reply({"state": "finished"})
    except (Exception, SystemExit) as error:
        reply({"failed": str(error) or type(error).__name__})
    finally:
        if not guard.is_alive():
            guard.start()


def begin(settings: Message) -> "wandb.Run":
    import wandb

    return wandb.init(
        project=settings["project"],
        config=settings["config"],
        dir=settings["dir"],
        id=settings["id"],
        mode=settings["mode"],
        resume="allow",
        allow_val_change=True,
        settings=wandb.Settings(
            silent=True,
            console="off",
            init_timeout=INIT_SECONDS,
            disable_git=True,  # the directory that the command was called in has nothing to do with the run
            disable_code=True,
            x_stats_pid=settings["pid"],  # whose memory and processor time to show
        ),
    )


def log(run: "wandb.Run", message: Message) -> None:
    if "metrics" in message:
        run.log(message["metrics"], step=message["step"])
    elif "answers" in message:
        import wandb

        table = wandb.Table(columns=["step", "prompt", "answer"], data=message["answers"])
        run.log({"samples": table}, step=message["step"])
    else:
        run.summary.update(message["summary"])
