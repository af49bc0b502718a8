"""Runs the server: listens, loads the model, generates until a signal, and ends in bounded time."""

import os
from pathlib import Path

from rich.filesize import decimal

from gpt2cli import tokenizer
from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.cli.interrupts import held_back
from gpt2cli.cli.open_model import open_model
from gpt2cli.cli.terminal import Console
from gpt2cli.cli.views.log_printer import LogPrinter
from gpt2cli.cli.views.serving import Address, ServerLog
from gpt2cli.cli.views.spinner import working
from gpt2cli.config import ServeConfig
from gpt2cli.errors import ResourceError
from gpt2cli.inference.decoder import Decoder
from gpt2cli.inference.free_memory import more_memory
from gpt2cli.paths import expand
from gpt2cli.published import PUBLISHED, TINY
from gpt2cli.serving import http_server
from gpt2cli.serving.engine import Engine
from gpt2cli.serving.served_model import ServedModel, served_model
from gpt2cli.serving.service import RequestRecord, Service
from gpt2cli.untrusted import is_directory

GRACE = 5.0
"""Seconds that running requests get after the first signal."""
SHARE_OF_SLOTS = 0.9
"""The largest share of the free memory that keys and values may take. Prompts that are read need some of the rest."""


def run_server(
    console: Console, config: ServeConfig, spec: ModelSpec, *, key: str, threads: int | None, compile: bool, json: bool
) -> None:
    """Serve a model until Ctrl-C, SIGTERM or SIGHUP, whose exception is raised at the end. Never returns otherwise.

    key  what a shell replaces by the key in the example; empty if clients need none
    """
    server = RunningServer(config, console, json)
    listener = http_server.bind(config)
    address = Address(config.host, listener.getsockname()[1], key)
    with server.printer, http_server.listening(server.service, listener):  # while the model is loaded, it answers 503
        with working(console, f"loading {spec.name}"):
            decoder, _ = open_model(console, spec, threads, compile)
            model = served_model(decoder, served_name(spec))
            engine = make_engine(decoder, config)
            tokenizer.encoding()  # so that the first request does not wait for it
        server.run(address, model, engine)


class RunningServer:
    """The service, what it reports, and how it ends."""

    def __init__(self, config: ServeConfig, console: Console, json: bool) -> None:
        self.service = Service(config, self._answered)
        self.printer = LogPrinter(console, json, self._without_log)
        self._log = ServerLog(self.printer)
        self._log_error: Exception | None = None

    def run(self, address: Address, model: ServedModel, engine: Engine) -> None:
        """Answer requests until a signal, and raise its exception. Raises OSError if the log cannot be written."""

        def end() -> None:
            self.service.is_ending = True
            engine.end(GRACE)
            self._log.ending(engine.load(), GRACE)

        with held_back(end) as interrupts:
            self.service.begin(model, engine)
            self._log.ready(address, model, engine)
            engine.run()
        interrupts.raise_received()
        if self._log_error is not None:
            raise self._log_error

    def _answered(self, record: RequestRecord) -> None:
        """Count and log a request, in the thread of the HTTP server."""
        self.service.metrics.count(record)
        self._log.answered(record)

    def _without_log(self, error: Exception) -> None:
        """End the server, unless it ends already, because stdout was closed or its disk is full."""
        self._log_error = error
        if not self.service.is_ending:
            self.service.give_up()


def make_engine(decoder: Decoder, config: ServeConfig) -> Engine:
    """Take the memory for all slots. Raises ResourceError, with the number of slots for which it suffices."""
    one = decoder.new_cache(1, decoder.config.block_size).nbytes
    free = more_memory(decoder.device)
    fitting = config.slots if free is None else int(SHARE_OF_SLOTS * free) // one
    if free is not None and config.slots > fitting:
        advice = f"--slots {fitting} fits" if fitting else "try a smaller model, or a lower --precision"
        raise ResourceError(
            f"--slots {config.slots} takes {decimal(config.slots * one)} of memory for keys and values, and "
            f"{decimal(free)} are free: {advice}"
        )
    return Engine(decoder, config.slots, config.max_queue)


def served_name(spec: ModelSpec) -> str:
    """The name of a model for clients: a published name, owner/name, or the last part of a path."""
    if spec.ckpt is None and (spec.model in (None, TINY, *PUBLISHED) or not is_directory(expand(spec.name))):
        return spec.name
    return Path(os.path.abspath(expand(spec.name))).name  # noqa: PTH100 (`.` and `..` have names, too)
