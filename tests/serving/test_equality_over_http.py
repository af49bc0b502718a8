"""Requests that are served together give the texts that `gpt2 generate` gives one by one."""

import asyncio
import random
import signal

from gpt2cli import load
from tests import models
from tests.served_process import serving
from tests.serving import random_requests

COUNT = 40


def test_texts_are_the_same_together_and_one_by_one(tmp_path):
    """The window is small, so that many texts outgrow it. There are fewer slots than texts, so that some wait."""
    directory = models.save_hub_directory(models.small_model(), tmp_path / "small")
    choose = random.Random(0)
    bodies = [random_requests.random_request(choose, models.SMALL.block_size) for _ in range(COUNT)]
    moments = [choose.uniform(0, 2) for _ in bodies]
    options = ["--model", str(directory), "--device", "cpu", "--precision", "fp16", "--slots", "3", "--max-queue", "40"]
    with serving(tmp_path, *options) as server:
        answers = asyncio.run(random_requests.served_at(server.port, bodies, moments))
        assert server.end(signal.SIGTERM) == 143
    model = load(str(directory), device="cpu", precision="fp16")
    for body, answer in zip(bodies, answers, strict=True):
        assert random_requests.difference(answer, random_requests.generated(model, body)) is None, body
