"""Sends the events of a run to Weights & Biases.

The W&B client can hang, raise, print, and delay the exit. Therefore it runs in a separate process, whose failure costs
the run one note and nothing else. Events go to that process as lines of JSON on its stdin. It answers on its stdout
that it is ready, has finished or has failed. It ends when its stdin ends, also if the training process is killed.
"""

import json
import os
import re
import secrets
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2cli import atomic, untrusted
from gpt2cli.training.events import Evaluated, Event, Finished, Sampled, Step
from gpt2cli.training.json_process import JsonProcess, Message

if TYPE_CHECKING:
    import wandb

INIT_SECONDS = 20.0  # for wandb.init, after the import of wandb
START_SECONDS = INIT_SECONDS + 10
FINISH_SECONDS = 15.0
CLEANUP_SECONDS = 5.0  # for the client to exit after it has finished
_RUN_ID = re.compile(rb"[A-Za-z0-9_-]{1,64}")


class WandbTracker(AbstractContextManager["WandbTracker"]):
    """Sends a run's events to W&B. If that fails, it writes one note and stops trying.

    project   the name of the W&B project
    config    the run's settings
    run_dir   its `wandb/` gets the client's files and the run's id, which a resumed run uses again
    note      receives the reason if tracking ends early, in the thread that calls `handle` or `close`
    """

    def __init__(
        self,
        project: str,
        config: Mapping[str, Any],
        run_dir: Path,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._note = note
        self._deadline = time.monotonic() + START_SECONDS
        self._ready = False
        self._client: JsonProcess | None = None  # None: tracking has ended
        try:
            self.run_id = keep_id(run_dir)
            self._client = JsonProcess("from gpt2cli.training.tracking import serve; serve()")
        except OSError as error:
            self._give_up(str(error))
            return
        settings = {"project": project, "config": dict(config), "dir": str(run_dir.absolute()), "id": self.run_id}
        self._client.send(settings | {"pid": os.getpid()})

    def __exit__(self, *_: object) -> None:
        self.close()

    def handle(self, event: Event) -> None:
        """Send one event. Never waits, never raises."""
        message = as_message(event)
        if self._client and message and not self._client.send(message):
            self._give_up("it does not keep up")
        while self._client and (reply := self._client.reply(0)):
            self._heed(reply)
        if self._client and not self._ready and time.monotonic() > self._deadline:
            self._give_up(f"no answer in {START_SECONDS:.0f} s")

    def close(self) -> None:
        """End the run at W&B. Waits at most FINISH_SECONDS, and START_SECONDS if the client is not ready yet."""
        if not self._client:
            return
        self._client.end()
        patience = 0.0
        try:
            if not self._ready:
                self._await(self._deadline, f"no answer in {START_SECONDS:.0f} s")
            late = f"it did not finish in {FINISH_SECONDS:.0f} s, `wandb sync` can send what it lacks"
            self._await(time.monotonic() + FINISH_SECONDS, late)
            patience = CLEANUP_SECONDS
        finally:  # after an exception, such as KeyboardInterrupt, without waiting
            if self._client:
                self._client.stop(patience)
                self._client = None

    def _await(self, deadline: float, late: str) -> None:
        """Wait for the next reply; give up at the deadline."""
        if self._client:
            if reply := self._client.reply(max(0.0, deadline - time.monotonic())):
                self._heed(reply)
            else:
                self._give_up(late)

    def _heed(self, reply: Message) -> None:
        self._ready = True
        if "failed" in reply:
            # not killed: the process deletes its temporary files and ends by itself
            self._give_up(str(reply["failed"]), kill=False)

    def _give_up(self, why: str, kill: bool = True) -> None:
        client, self._client = self._client, None
        if client and kill:
            client.stop(0)
        elif client:
            client.end()
        self._note(f"wandb: {' '.join(why.split()).rstrip('.')[:300]}; the run goes on without it")


def keep_id(run_dir: Path) -> str:
    """The run's id at W&B, which `run_dir` stores: the stored one, or a new one."""
    file = run_dir / "wandb" / "run_id"
    if untrusted.is_file(file):
        stored = (untrusted.read_at_most(file, 100) or b"").strip()
        if _RUN_ID.fullmatch(stored):  # else the file is damaged
            return stored.decode()
    file.parent.mkdir(parents=True, exist_ok=True)
    run_id = secrets.token_hex(4)
    atomic.write_text(file, run_id + "\n")
    return run_id


def as_message(event: Event) -> Message | None:
    """The message for an event: metrics of a step, a table of answers, or the summary; None if W&B does not need it."""
    fields = asdict(event)
    match event:
        case Step():
            return {"step": fields.pop("step"), "metrics": fields}
        case Evaluated():
            return {"step": event.step, "metrics": {"val_loss": event.val_loss, "tokens_seen": event.tokens_seen}}
        case Sampled():
            return {"step": event.step, "answers": [[event.step, *astuple(each)] for each in event.answers]}
        case Finished():
            return {"summary": fields}
    return None


def serve() -> None:
    """The main function of the client's process: log the messages from stdin to a W&B run, and finish it at the end."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: None)  # only the end of stdin ends this process
    # private copies of the pipes: the W&B client and its service get /dev/null instead
    inbox = os.fdopen(os.dup(0), encoding="utf-8")
    outbox = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)

    def reply(message: Message) -> None:
        with suppress(OSError):
            outbox.write(json.dumps(message) + "\n")

    # if the training process was killed, only this timer can end a hanging client
    guard = threading.Timer(FINISH_SECONDS, os._exit, (1,))
    guard.daemon = True
    try:
        run = begin(untrusted.parse_json(inbox.readline()))
        reply({"state": "ready"})
        exit_code = 1  # to W&B a run has crashed, unless it sent a summary
        for line in inbox:
            message = untrusted.parse_json(line)
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
        resume="allow",
        allow_val_change=True,
        settings=wandb.Settings(
            silent=True,
            console="off",
            init_timeout=INIT_SECONDS,
            disable_git=True,  # the working directory is not the run's code
            disable_code=True,
            x_stats_pid=settings["pid"],  # the process whose memory and processor time to show
        ),
    )


def log(run: "wandb.Run", message: Message) -> None:
    if "metrics" in message:
        run.log(message["metrics"], step=message["step"])
    elif "answers" in message:
        import wandb

        table = wandb.Table(columns=["step", "prompt", "answer", "expected"], data=message["answers"])
        run.log({"samples": table}, step=message["step"])
    else:
        run.summary.update(message["summary"])
