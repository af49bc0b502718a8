"""Whether a server stays sound under load: its memory, what clients leave behind, and its texts."""

import asyncio
import time
from typing import Any

from gpt2cli import load as load_model
from tests.serving import leaving_clients, random_requests, raw_client
from tests.serving.load_part import Load, Part


async def memory(load: Load, part: Part) -> None:
    early, late = 100, load.args.memory_requests
    sizes = []
    for count in (early, late - early):
        bodies = [random_requests.random_request(load.choose, load.window, 24) for _ in range(count)]
        await _send(load.port, bodies, clients=12)
        await load.until_idle()
        sizes.append(load.server.resident_bytes())
    for requests, size in zip((early, late), sizes, strict=True):
        shown = f"{size['resident'] / 2**20:.1f} MiB, {size['anonymous'] / 2**20:.1f} MiB of it anonymous"
        part.tell(f"resident after {requests:,} random requests", size, shown)
    for kind, before in sizes[0].items():
        growth = sizes[1][kind] / before - 1
        part.must(growth <= 0.05, f"{kind} memory grows by at most 5%: {growth:+.2%}")


async def _send(port: int, bodies: list[dict[str, Any]], clients: int) -> None:
    """Send requests, as many at a time as there are clients."""
    left = iter(bodies)

    async def client() -> None:
        for body in left:
            await random_requests.served(port, body)

    await asyncio.gather(*(client() for _ in range(clients)))


async def leave(load: Load, part: Part) -> None:
    server, count = load.server, load.args.leaving
    probe = load.body(20, 40) | {"logprobs": 3}
    await asyncio.gather(*(raw_client.ask(load.port, load.body(20, 20)) for _ in range(16)))  # all threads are made
    expected = (await raw_client.ask(load.port, probe))["choices"]
    await load.until_idle()
    files, threads = server.open_files(), server.threads()
    start = time.perf_counter()
    ways = await leaving_clients.come_and_leave(load.port, load.choose, count, load.window)
    left = time.perf_counter()
    await load.until_idle()
    idle = time.perf_counter()
    shown = f"in {left - start:.1f} s: " + ", ".join(f"{number} {way}" for way, number in ways.items())
    part.tell(f"{count} clients came and left", ways, shown)
    part.tell("no slot is busy, no request waits", idle - left, f"{idle - left:.2f} s after the last has left")
    # a thread that reads requests ends when it had nothing to do for 10 seconds and another request comes
    while (server.open_files() != files or server.threads() > threads) and time.perf_counter() < idle + 30:
        await asyncio.sleep(1)
        await raw_client.ask(load.port, probe)
    after = server.open_files()
    part.must(after == files, f"the same files are open as before: {len(files)}, now {len(after)}")
    part.must(server.threads() <= threads, f"not more threads than before: {threads}, now {server.threads()}")
    part.must((await raw_client.ask(load.port, probe))["choices"] == expected, "a seed still gives the same text")


async def equality(load: Load, part: Part) -> None:
    args = load.args
    bodies = [random_requests.random_request(load.choose, load.window) for _ in range(args.equality_requests)]
    moments = [load.choose.uniform(0, 0.1 * len(bodies)) for _ in bodies]
    answers = await random_requests.served_at(load.port, bodies, moments)
    model = load_model(args.model, ckpt=args.ckpt, device="cpu", precision=args.precision)
    found = [
        random_requests.difference(answer, random_requests.generated(model, body))
        for body, answer in zip(bodies, answers, strict=True)
    ]
    wrong = [(body, why) for body, why in zip(bodies, found, strict=True) if why]
    texts = sum(map(len, answers))
    part.tell(
        "requests, texts, wrong requests", [len(bodies), texts, len(wrong)], f"{len(bodies)}, {texts}, {len(wrong)}"
    )
    for body, why in wrong[:3]:
        print(f"{body}\n  {why}")
    part.must(not wrong, "all texts, ends and log-probabilities are those of gpt2 generate")
