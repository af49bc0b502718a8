"""What the parts of tests/serve_load.py share: their settings, and how they tell figures."""

import argparse
import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

from gpt2cli.tokenizer import END_OF_TEXT_ID
from tests.runner import wait_until
from tests.served_process import ServedProcess


@dataclass
class Part:
    """The figures of one part, and the targets that it misses."""

    name: str
    figures: dict[str, Any] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)

    def tell(self, what: str, value: Any, shown: str) -> None:
        self.figures[what] = value
        print(f"{self.name:<12} {what}: {shown}", flush=True)

    def must(self, holds: bool, target: str) -> None:
        print(f"{self.name:<12} {'ok' if holds else 'MISSED'}: {target}", flush=True)
        if not holds:
            self.missed.append(target)


@dataclass(frozen=True)
class Load:
    """What a part gets: a server, random choices, the window of the model, and the options of the script."""

    server: ServedProcess
    choose: random.Random
    window: int
    args: argparse.Namespace

    @property
    def port(self) -> int:
        return self.server.port

    def body(self, prompt_tokens: int, new_tokens: int) -> dict[str, Any]:
        """A request for a text of exactly `new_tokens` tokens: the model cannot end it."""
        prompt = self.choose.choices(range(END_OF_TEXT_ID), k=prompt_tokens)
        seed = self.choose.randrange(2**31)
        never_ends = {"logit_bias": {str(END_OF_TEXT_ID): -100}}
        return {"prompt": prompt, "max_tokens": new_tokens, "seed": seed, "temperature": 1} | never_ends

    async def until_idle(self) -> None:
        """Wait until no slot is busy and no request waits."""
        await asyncio.to_thread(wait_until, self.server.is_idle)
