"""How fast a server answers: tokens a second of several clients, and the time to the first text."""

import asyncio
import statistics
import time
from typing import Any

from tests.serving import raw_client
from tests.serving.load_part import Load, Part

CLIENTS = (1, 2, 4, 8)
ALONE, READING, BESIDE = "alone", "while a long prompt is read", "beside 7 streams"


async def throughput(load: Load, part: Part) -> None:
    args = load.args
    speeds: dict[int, list[float]] = {clients: [] for clients in CLIENTS}
    await _together(load, max(CLIENTS))  # to warm up
    for _ in range(args.rounds):
        for clients, found in speeds.items():
            start = time.perf_counter()
            tokens = await _together(load, clients)
            found.append(tokens / (time.perf_counter() - start))
    medians = {clients: statistics.median(found) for clients, found in speeds.items()}
    for clients, found in speeds.items():
        ratios = [together / one for together, one in zip(found, speeds[1], strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f} in {args.rounds} rounds"
        shown = f"{medians[clients]:.1f} tokens/s, {statistics.median(ratios):.2f} times one ({spread})"
        part.tell(f"{clients} at once, {args.prompt_tokens} tokens + {args.new_tokens} new ones", found, shown)
    part.must(medians[8] >= 3 * medians[1], "8 clients get together at least 3 times the tokens/s of one")


async def _together(load: Load, clients: int) -> int:
    """Let clients send one request each, at once. Returns the new tokens, which the server counts."""
    bodies = [load.body(load.args.prompt_tokens, load.args.new_tokens) for _ in range(clients)]
    return sum(await asyncio.gather(*(_new_tokens(load.port, body) for body in bodies)))


async def _new_tokens(port: int, body: dict[str, Any]) -> int:
    tokens = 0
    async for event in raw_client.stream(port, body | {"stream_options": {"include_usage": True}}):
        if event["usage"]:
            tokens = event["usage"]["completion_tokens"]
    return tokens


async def first_token(load: Load, part: Part) -> None:
    args = load.args
    seconds: dict[str, list[float]] = {ALONE: [], READING: [], BESIDE: []}
    reading: list[float] = []
    await _beside_streams(load)  # to warm up
    for _ in range(args.first_rounds):
        start = time.perf_counter()
        await raw_client.ask(load.port, load.body(args.long_tokens, 1))
        reading.append(time.perf_counter() - start)
        seconds[ALONE].append(await _first_text(load))
        seconds[READING] += await _while_reading(load, statistics.median(reading))
        seconds[BESIDE].append(await _beside_streams(load))
    part.tell(f"{args.long_tokens} tokens are read", reading, f"in {statistics.median(reading) * 1000:.0f} ms")
    medians = {case: statistics.median(found) for case, found in seconds.items()}
    for case, found in seconds.items():
        slow = sorted(found)[len(found) * 9 // 10]
        ratio = medians[case] / medians[ALONE]
        shown = f"{medians[case] * 1000:.1f} ms, {ratio:.2f} times alone, 9 of 10 in {slow * 1000:.1f}"
        part.tell(f"the first text after {args.short_tokens} tokens, {case}", found, f"{shown} ({len(found)} times)")
    part.must(medians[READING] < 2.5 * medians[ALONE], f"the first text {READING}: under 2.5 times alone")


async def _first_text(load: Load) -> float:
    """Seconds from a request with a short prompt to its first chunk with text. The client leaves then."""
    body = load.body(load.args.short_tokens, 16) | {"stream": True}
    seconds, start = 0.0, time.perf_counter()
    connection = await raw_client.begin(load.port, raw_client.COMPLETIONS, body)
    async for event in raw_client.events(connection):
        seconds = time.perf_counter() - start
        if any(choice["text"] for choice in event["choices"]):
            break
    await connection.close()
    return seconds


async def _while_reading(load: Load, usual: float) -> list[float]:
    """The time to the first text, at a random moment of the `usual` seconds of reading; [] if that was too late."""
    long = asyncio.ensure_future(raw_client.ask(load.port, load.body(load.args.long_tokens, 1)))
    await asyncio.sleep(load.choose.uniform(0.02, 0.9) * usual)
    begun_in_time = not long.done()
    seconds = await _first_text(load)
    await long
    return [seconds] if begun_in_time else []


async def _beside_streams(load: Load) -> float:
    """The time to the first text while 7 other texts are generated."""
    streams = [asyncio.ensure_future(_new_tokens(load.port, load.body(8, 300))) for _ in range(7)]
    while load.server.number("busy_slots") < 7:
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.3 + load.choose.uniform(0, 0.2))  # all prompts are read, and any moment of a step
    seconds = await _first_text(load)
    for stream in streams:
        stream.cancel()
    await asyncio.gather(*streams, return_exceptions=True)
    await load.until_idle()
    return seconds
