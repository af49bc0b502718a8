"""The log of a server: for people on stderr, for programs as lines of JSON on stdout. It has no text of a request."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.filesize import decimal

from gpt2cli.cli.views.log_printer import LogPrinter
from gpt2cli.counted import counted
from gpt2cli.serving.addresses import is_any, plain_host
from gpt2cli.serving.engine import Engine, Load
from gpt2cli.serving.request_log import CLIENT_LEFT
from gpt2cli.serving.served_model import ServedModel
from gpt2cli.serving.service import RequestRecord

POLLED = ("/health", "/metrics")
"""Routes that other programs ask every few seconds. People do not see these requests."""


@dataclass(frozen=True)
class Address:
    """Where a server listens.

    key  what a shell replaces by the key, such as $GPT2CLI_API_KEY; empty if clients need none
    """

    host: str
    port: int
    key: str = ""

    @property
    def url(self) -> str:
        """The URL at which a program on this machine reaches the server."""
        host = plain_host(self.host)
        if self.is_everywhere:
            host = "::1" if ":" in host else "127.0.0.1"
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def is_everywhere(self) -> bool:
        """Whether the server listens at all addresses of the machine."""
        return is_any(self.host)


class ServerLog:
    """Tells what a server does."""

    def __init__(self, printer: LogPrinter) -> None:
        self._printer = printer

    def ready(self, address: Address, model: ServedModel, engine: Engine) -> None:
        """The model is loaded, and requests are answered."""
        place = f"{address.url} and all other addresses of this machine" if address.is_everywhere else address.url
        slots = f"{counted(engine.slots, 'slot')} ({decimal(engine.kv_bytes)} for keys and values)"
        self._printer.note(f"serving {model.name} at {place} with {slots}; Ctrl-C ends it")
        self._printer.note(f"to try it: {example(address, model)}")
        names = {"model": model.name, "precision": model.precision, "device": model.device}
        self._printer.event("ready", url=address.url, **names, slots=engine.slots, kv_bytes=engine.kv_bytes)

    def answered(self, record: RequestRecord) -> None:
        """A request was answered, or its client has left."""
        self._printer.event("request", **as_json(record))
        if not self._printer.json and record.path not in POLLED:
            self._printer.note(f"{datetime.now():%H:%M:%S}  {in_words(record)}")

    def ending(self, load: Load, grace: float) -> None:
        """A signal asked for the end."""
        counts = {"text": load.busy_slots, "waiting request": load.waiting_requests}
        running = [counted(count, noun) for noun, count in counts.items() if count]
        if running:
            get = "gets" if sum(counts.values()) == 1 else "get"
            self._printer.note(
                f"ending: {' and '.join(running)} {get} up to {grace:.0f} seconds; press Ctrl-C again to end at once"
            )
        self._printer.event("ending", busy_slots=load.busy_slots, waiting_requests=load.waiting_requests)


def example(address: Address, model: ServedModel) -> str:
    """A command that sends a request: to a model with a prompt template an instruction, to others a text."""
    is_chat = model.template is not None and not model.assumes_alpaca
    path = "chat/completions" if is_chat else "completions"
    asked = '"messages": [{"role": "user", "content": "Who are you?"}]' if is_chat else '"prompt": "Once upon a time"'
    key = f' -H "Authorization: Bearer {address.key}"' if address.key else ""
    json = "-H 'Content-Type: application/json'"
    return f"curl {shlex.quote(f'{address.url}/v1/{path}')} {json}{key} -d '{{{asked}}}'"


def in_words(record: RequestRecord) -> str:
    """A request as the log shows it to people."""
    words = f"{record.method} {record.path} {record.status}"
    if record.status == CLIENT_LEFT:
        words += " (client left)"
    if record.hint:
        words += f" ({record.hint})"
    if record.bug:
        words += f" (bug: {record.bug})"
    if record.prompt_tokens is None:
        return f"{words}  {record.seconds:.2f} s"
    parts = [f"{record.prompt_tokens:,} -> {counted(record.new_tokens or 0, 'token')}"]
    if record.first_text is not None:
        parts.append(f"first after {record.first_text:.2f} s")
    if (speed := record.tokens_per_second) is not None:
        parts.append(f"{speed:.0f} tokens/s" if speed >= 10 else f"{speed:.1f} tokens/s")
    else:
        parts.append(f"{record.seconds:.2f} s")
    return f"{words}  {', '.join(parts)}"


def as_json(record: RequestRecord) -> Mapping[str, Any]:
    """A request as the log shows it to programs."""
    return {
        "method": record.method,
        "path": record.path,
        "status": record.status,
        "seconds": record.seconds,
        "first_text_s": record.first_text,
        "prompt_tokens": record.prompt_tokens,
        "new_tokens": record.new_tokens,
        "tokens_per_s": record.tokens_per_second,
    } | {name: value for name in ("hint", "bug") if (value := getattr(record, name))}
