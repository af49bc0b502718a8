"""The other commands on the device, as processes."""

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from gpt2cli.config import GPTConfig
from tests.gpu.common import Context, cli, random_model, write_records
from tests.models import save_hub_directory
from tests.served_process import ENDLESS, serving

CUDA_LIMIT = """
import torch
total = torch.cuda.get_device_properties(0).total_memory
torch.cuda.set_per_process_memory_fraction({bytes} / total)
"""
CPU_LIMIT = """
import resource
resource.setrlimit(resource.RLIMIT_DATA, ({bytes}, {bytes}))
"""


def memory(context: Context) -> None:
    """What does not fit ends with code 6 and one line that says what to do; the process may have 1.2 GB."""
    limit = context.work / "limit"
    limit.mkdir()
    code = (CUDA_LIMIT if context.cuda else CPU_LIMIT).format(bytes=1_200_000_000)
    (limit / "sitecustomize.py").write_text(code)
    env = {"PYTHONPATH": os.pathsep.join([str(limit), os.environ["PYTHONPATH"]])}
    data = write_records(context.work / "records.json", 60)
    device = ["--device", context.device.type, "--quiet", "--offline"]
    scratch = ["finetune", "--from-scratch", "--data", data, "--max-steps", 3, "--sample-every", 0, "--eval-every", 0]
    scratch += ["--run-dir", context.work / "run", "--out", context.work / "out.pt", *device]  # 124M: 2 GB to train
    many = ["generate", "Once upon a time", "--model", "tiny", "--num-samples", 20_000, "-n", 200, "--temp", 0]
    for case, arguments in (("finetune", scratch), ("generate", [*many, *device])):
        with context.each(case):
            done = cli(*arguments, code=6, env=env)
            lines = done.stderr.strip().splitlines()
            good = len(lines) == 1 and lines[0].startswith("error:") and "Traceback" not in done.stderr
            context.report(case, good, said=" | ".join(lines))
    left = [path.name for path in (context.work / "run").rglob("*")] if (context.work / "run").exists() else []
    context.report("nothing-written", not (context.work / "out.pt").exists(), left=left)


def evaluate(context: Context) -> None:
    """The loss on records is the CPU's: within 1e-3 in fp32, and 1e-2 in bf16."""
    data = write_records(context.work / "records.json", context.pick(100, 20))
    options = ["--data", data, "--model", "tiny", "--answers", 4, "-n", 20, "--json", "--quiet", "--offline"]

    def loss(device: str, precision: str) -> dict:
        done = cli("evaluate", *options, "--device", device, "--precision", precision)
        return json.loads(done.stdout)["models"][0]

    expected = loss("cpu", "fp32")
    for precision, bound in (("fp32", 1e-3), ("bf16", 1e-2)):
        found = loss(context.device.type, precision)
        apart = abs(found["loss"] - expected["loss"])
        figures = {"accuracy": found["accuracy"], "tokens": found["tokens"]}
        context.report(precision, apart <= bound, loss=found["loss"], apart=apart, bound=bound, **figures)


def quantized(context: Context) -> None:
    """Files in 8 and 4 bits: the same loss on the device as on the CPU, within 1e-2, and `tiny` in these precisions."""
    config = GPTConfig(n_layer=3, n_head=4, n_embd=256, block_size=128)
    saved = save_hub_directory(random_model(config, "cpu"), context.work / "model")
    data = write_records(context.work / "records.json", context.pick(60, 20))
    for bits in (8, 4):
        with context.each(f"file-{bits}"):
            file = context.work / f"int{bits}.safetensors"
            cli("quantize", "--model", saved, "--bits", bits, "--out", file, "--quiet")
            losses = [file_loss(file, data, device) for device in (context.device.type, "cpu")]
            apart = abs(losses[0] - losses[1])
            context.report(f"file-{bits}", apart <= 1e-2, loss=losses[0], apart=apart, bound=1e-2)
    for precision in ("int8", "int4"):
        with context.each(precision):
            options = ["-n", 20, "--temp", 0, "--precision", precision, "--device", context.device.type, "--json"]
            done = cli("generate", "Once upon a time", "--model", "tiny", *options)
            text = json.loads(done.stdout)["text"]
            context.report(precision, len(text) > 0, text=text)


def file_loss(file: object, data: object, device: str) -> float:
    done = cli("evaluate", "--ckpt", file, "--data", data, "--answers", 0, "--json", "--quiet", "--device", device)
    return json.loads(done.stdout)["models"][0]["loss"]


def chat(context: Context) -> None:
    """One answer, as text and as JSON."""
    options = ["--model", "tiny", "--prompt", "What does the owl say?", "-n", 30, "--temp", 0, "--offline"]
    options += ["--device", context.device.type]
    text = cli("chat", *options).stdout.strip()
    context.report("text", bool(text), said=text)
    answer = json.loads(cli("chat", *options, "--json").stdout)
    context.report("json", answer["text"].strip() == text, keys=sorted(answer))


def explain(context: Context) -> None:
    """Every number of `explain --json` on the device is the CPU's, within 1e-3 of 1 or of itself if it is larger."""
    prompt, against = "Mary saw John. John saw", "Mary saw John. Mary saw"
    for case, more in (("one-model", ["--against", against]), ("ablated", ["--ablate", "0.1,mlp.3", "--bos"])):
        with context.each(case):
            options = ["--model", "tiny", "--offline", "--json", "--foil", " her", *more]
            devices = (context.device.type, "cpu")
            found = [json.loads(cli("explain", prompt, *options, "--device", device).stdout) for device in devices]
            numbers, expected = (dict(numbers_in(one)) for one in found)
            apart = {place: abs(numbers[place] - value) / max(1, abs(value)) for place, value in expected.items()}
            worst = max(apart, key=apart.__getitem__)
            same = numbers.keys() == expected.keys() and apart[worst] <= 1e-3
            context.report(case, same, apart=apart[worst], at=worst, numbers=len(apart), keys=sorted(found[0]))


def numbers_in(value: object, place: str = "") -> Iterator[tuple[str, float]]:
    """The floating-point numbers in a JSON value, each with its place. Equally likely tokens may change places."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from numbers_in(each, f"{place}.{key}")
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from numbers_in(each, f"{place}[{number}]")
    elif isinstance(value, float):
        yield place, value


def logprobs(context: Context) -> None:
    """Log-probabilities of generated tokens on the device, by graphs too, are the CPU's; also without some parts."""
    common = ["--model", "tiny", "-n", context.pick(60, 12), "--num-samples", 3, "--seed", 1, "--precision", "fp32"]
    for case, extra in (("whole", []), ("ablated", ["--ablate", "1.0,mlp.3,attn.5"])):
        options = [*common, *extra, "--offline", "--json", "--logprobs", 3]
        expected = token_logprobs(*options, "--device", "cpu")
        for name, compiled in ((case, []), (f"{case}-compiled", ["--compile"])):
            if compiled and not context.cuda:
                context.skip("--compile is for CUDA", name)
                continue
            with context.each(name):
                found = token_logprobs(*options, *compiled, "--device", context.device.type)
                same = [entry["id"] for entry in found] == [entry["id"] for entry in expected]
                apart = max(abs(a["logprob"] - b["logprob"]) for a, b in zip(found, expected, strict=True))
                context.report(name, same and apart <= 1e-3, apart=apart, bound=1e-3, tokens=len(found))


def token_logprobs(*options: object) -> list[dict]:
    done = cli("generate", "Once upon a time", *options)
    return [entry for line in done.stdout.splitlines() for entry in json.loads(line)["logprobs"]]


def serve(context: Context) -> None:
    """Texts for clients at the same time are those of `generate`, also with --compile, and SIGTERM ends the server.

    In another batch, a GPU adds in another order: log-probabilities may differ by 1e-3, and a text may take another
    token where two have nearly the same chance. So half of the texts must be equal, and each up to its first
    difference.
    """
    common = ["--model", "tiny", "--precision", "fp32", "--offline", "--device", context.device.type]
    count, tokens = 8, context.pick(100, 12)
    for case, options in (("plain", common), ("compiled", [*common, "--compile"])):
        if "--compile" in options and not context.cuda:
            context.skip("--compile is for CUDA", case)
            continue
        with context.each(case), serving(context.work, "--slots", "4", *options) as server:
            body = {"prompt": "Once upon a time", "max_tokens": tokens, "logprobs": 1}
            asked = [body | {"seed": 1 + number} for number in range(count)]
            with ThreadPoolExecutor(count) as clients:
                answers = list(clients.map(lambda each: server.ask("/v1/completions", each), asked))
            found = [answer["choices"][0] for answer in answers]
            sampled = ["--num-samples", count, "--seed", 1, "-n", tokens, "--json", "--logprobs", 1]
            expected = [
                json.loads(line) for line in cli("generate", body["prompt"], *sampled, *options).stdout.splitlines()
            ]
            equal = sum(choice["text"] == sample["text"] for choice, sample in zip(found, expected, strict=True))
            apart = max(largest_difference(*pair) for pair in zip(found, expected, strict=True))
            context.report(f"{case}-texts", 2 * equal >= count and apart <= 1e-3, equal=equal, of=count, apart=apart)
            message = {"role": "user", "content": "What does the owl say?"}
            answer = server.ask("/v1/chat/completions", {"messages": [message], "max_tokens": 24, "temperature": 0})
            said = answer["choices"][0]["message"]["content"]
            context.report(f"{case}-chat", bool(said), said=said)
            with server.open("/v1/completions", {"prompt": "Once", "stream": True} | ENDLESS) as stream:
                stream.readline()
                code = server.end(signal.SIGTERM)
            context.report(f"{case}-ended", code == 143, code=code)


def largest_difference(choice: dict, sample: dict) -> float:
    """The largest difference of log-probabilities in two texts, up to the first token that is not the same."""
    found = zip(choice["logprobs"]["tokens"], choice["logprobs"]["token_logprobs"], strict=True)
    expected = [(entry["token"], entry["logprob"]) for entry in sample["logprobs"]]
    apart = 0.0
    for (token, logprob), (other, other_logprob) in zip(found, expected):  # noqa: B905 (one may have ended)
        if token != other:
            break
        apart = max(apart, abs(logprob - other_logprob))
    return apart
