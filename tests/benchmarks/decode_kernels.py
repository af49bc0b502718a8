"""Compares the kernels of decoding, shape by shape, and whole steps with the memory's bandwidth. Prints JSON lines.

python tests/benchmarks/decode_kernels.py                                # both models, 1, 16 and 64 rows; needs a GPU
python tests/benchmarks/decode_kernels.py --models gpt2 --rows 1 --steps-only
python tests/benchmarks/decode_kernels.py --rows 1 --floor                # what launches alone take

Launches alternate between copies of each matrix that together exceed the L2 cache. `fraction` is the achieved share of
the bandwidth that a sum over 512 MB reaches. The best choices belong in gpt2cli/inference/gpu/launch_shapes.py.

Launches take time of their own: `--floor` measures chains of as many kernels as a step has, each of which does nothing
but read a number that the one before wrote. `floor_us` is the time of this chain, `memory_us` that of reading the
weights at full bandwidth, and `fraction` the share of the bandwidth that a step of both, one after the other, reaches.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from gpt2cli.config import GPTConfig, SamplingConfig
from gpt2cli.inference.gpu import fused_step
from gpt2cli.inference.gpu.bandwidth import read_bandwidth
from gpt2cli.inference.gpu.cuda_graphs import UNROLLED, GraphSession, State
from gpt2cli.inference.gpu.fused_step import FusedStep
from gpt2cli.inference.gpu.launch_shapes import PROCESSORS, early_start, matmul_shape, matvec_shape
from gpt2cli.inference.gpu.triton_overlap import let_next_start, wait_for_previous
from gpt2cli.model.gpt import GPT
from gpt2cli.published import PUBLISHED

CYCLED = 2**28
"""Bytes of all copies of a matrix: several times the L2 cache."""
GREEDY = SamplingConfig(temperature=0)


def matrices(N: int, K: int) -> list[Tensor]:
    count = max(2, min(200, CYCLED // (2 * N * K)))
    return list((torch.randn(count, N, K, device="cuda") * 0.02).bfloat16().unbind())


def microseconds(run: Callable[[Tensor], object], weights: list[Tensor]) -> float:
    """The time of one launch, in a graph with one launch for each of the weights."""
    return triton.testing.do_bench_cudagraph(lambda: [run(w) for w in weights], rep=10) * 1000 / len(weights)


def report(bandwidth: float, bytes_read: int, us: float, **what: object) -> None:
    print(json.dumps({**what, "us": round(us, 3), "fraction": round(bytes_read / us * 1e6 / bandwidth, 3)}), flush=True)


def matvec_candidates(N: int, K: int) -> list[tuple[int, int]]:
    """The default first, then half and twice the rows, and the other number of warps."""
    rows, warps = matvec_shape(N, K)
    found = [(rows, warps), (max(1, rows // 2), warps), (rows * 2, warps), (rows, 12 - warps)]
    return list(dict.fromkeys(found))


def matmul_candidates(N: int, K: int, block_b: int, may_split: bool) -> list[tuple[int, int, int, int, int]]:
    """The default first, then twice the outputs, the warps or, if it may split, the splits."""
    n, k, count, warps, stages = matmul_shape(N, K, block_b, may_split)
    found = [(n, k, count, warps, stages), (2 * n, k, count, warps, stages), (n, k, count, 2 * warps, stages)]
    return found + ([(n, k, min(8, 2 * count), warps, stages)] if may_split else [])


def time_shapes(name: str, model: GPT, rows: int, bandwidth: float) -> None:
    """Time each product of a step, with the default launch shape and a few others."""
    config, V = model.config, model.config.vocab_size
    C, state = config.n_embd, State(model, rows, 256)
    step = FusedStep(model, state, GREEDY)
    step.best, step.ids = (torch.zeros(rows, V, dtype=t, device="cuda") for t in (torch.float32, torch.int32))
    block = model.h[0]
    kinds = {"qkv": (3 * C, C), "proj": (C, C), "fc": (4 * C, C), "out": (C, 4 * C), "head": (V, C)}
    for kind, (N, K) in kinds.items():
        weights = matrices(N, K)
        into_x = kind in ("proj", "out")
        bias = {"qkv": block.attn.c_attn.bias, "fc": block.mlp.c_fc.bias}.get(kind, block.mlp.c_proj.bias)
        bias = None if kind == "head" else bias
        x = {"out": step.inner, "proj": step.parts}.get(kind, step.x if rows == 1 else step.normed)
        x = step.mixed if rows > 1 and kind == "proj" else x
        out = {"qkv": step.qkv, "fc": step.inner}.get(kind, step.x if rows == 1 else step.products)
        options = {"gelu": kind == "fc", "best": kind == "head"}
        if rows == 1:
            options |= {"norm": None if into_x else block.ln_1, "add": into_x}
            options["splits"] = step.splits if kind == "proj" else 1
            choice, candidates = "matvec_shape", matvec_candidates(N, K)
            run = lambda w: step._matvec(x, w, bias, out, **options)  # noqa: B023, E731
        else:
            options["may_split"] = into_x
            bias = None if into_x else bias
            choice, candidates = "matmul_shape", matmul_candidates(N, K, step.block_b, into_x)
            run = lambda w: step._matmul(x, w, bias, out, **options)  # noqa: B023, E731
        for candidate in candidates:
            setattr(fused_step, choice, lambda *_, candidate=candidate: candidate)
            what = {"model": name, "rows": rows, "kernel": kind, "N": N, "K": K, "blocks": candidate}
            try:
                report(bandwidth, weights[0].nbytes, microseconds(run, weights), **what)
            except Exception as error:  # for example too much shared memory; go on with the others
                print(json.dumps({**what, "error": repr(error)[:200]}), flush=True)
        del weights
    fused_step.matvec_shape, fused_step.matmul_shape = matvec_shape, matmul_shape


def time_attention(name: str, model: GPT, rows: int, bandwidth: float) -> None:
    state = State(model, rows, 1024)
    step, ahead = FusedStep(model, state, GREEDY), model.h[0].attn.c_proj.weight
    for length in (128, 1000):
        state.lengths.fill_(length)
        us = triton.testing.do_bench_cudagraph(lambda: step._attend(0, ahead), rep=10) * 1000
        read = 2 * rows * length * model.config.n_embd * 2
        report(bandwidth, read, us, model=name, rows=rows, kernel="attend", length=length, splits=step.splits)


def time_steps(name: str, config: GPTConfig, rows: int, bandwidth: float) -> None:
    """Time whole steps as graphs, for each value that `early_start` can have."""
    model = GPT(config).cuda().bfloat16().eval()
    read = bytes_read(model)
    for early in (0, 1, 2):
        fused_step.early_start = lambda *_, early=early: early
        start = time.perf_counter()
        session = GraphSession(model, rows, 256, GREEDY, fused=True)
        torch.cuda.synchronize()
        made = time.perf_counter() - start
        session.state.lengths.fill_(128)
        us = replay_time(session._graphs[UNROLLED], session.state.slots.zero_) / UNROLLED
        what = {"model": name, "rows": rows, "kernel": "step", "early": early, "ready_s": round(made, 2)}
        report(bandwidth, read, us, **what, tokens_s=round(rows / us * 1e6))
        del session
    fused_step.early_start = early_start


def bytes_read(model: GPT) -> int:
    """The bytes of weights that a step reads."""
    return model.wte.weight.nbytes + sum(parameter.nbytes for parameter in model.h.parameters())


def replay_time(graph: torch.cuda.CUDAGraph, before: Callable[[], object]) -> float:
    """Microseconds of a graph: the median of several replays. `before` is called before each."""
    times = []
    for _ in range(11):
        before()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) * 1000)
    return sorted(times)[5]


@triton.jit
def link_kernel(x, following, PDL: tl.constexpr):
    """Read one number, and write the next one."""
    let_next_start(PDL)
    wait_for_previous(PDL)
    tl.store(following, tl.load(x) + 1)


def time_floor(name: str, config: GPTConfig, rows: int, bandwidth: float) -> None:
    """Time chains of kernels as long as a step's, with one program each and with one for each multiprocessor."""
    with torch.device("meta"):
        memory = bytes_read(GPT(config).bfloat16()) / bandwidth * 1e6
    count = launches(config, rows)
    numbers = torch.zeros(count + 1, 32, device="cuda")  # a cache line each
    for early in (0, 1, 2):
        for programs in (1, PROCESSORS):

            def step(early: int = early, programs: int = programs) -> None:
                for i in range(count):
                    # the first kernel of a step does not start early
                    options = {"PDL": early, "launch_pdl": i > 0 and early > 0}
                    link_kernel[programs,](numbers[i], numbers[i + 1], **options)

            graph = captured(step)
            us = replay_time(graph, numbers.zero_) / UNROLLED
            if int(numbers[count, 0]) != count:
                raise RuntimeError(f"the chain ended with {int(numbers[count, 0])}, not {count}")
            what = {"model": name, "rows": rows, "kernel": "floor", "early": early, "programs": programs}
            what |= {"launches": count, "us_a_launch": round(us / count, 3), "floor_us": round(us, 1)}
            print(json.dumps({**what, "memory_us": round(memory, 1), "fraction": round(memory / (memory + us), 3)}))


def launches(config: GPTConfig, rows: int) -> int:
    """The number of kernels in a step."""
    two = [dataclasses.replace(config, n_layer=layers) for layers in (1, 2)]
    counts = []
    for shape in two:
        model = GPT(shape).cuda().bfloat16().eval()
        step = FusedStep(model, State(model, rows, 256), GREEDY)
        names: list[object] = []
        step._launch = lambda kernel, *_, names=names, **__: names.append(kernel)  # type: ignore[method-assign]
        step()
        counts.append(len(names))
    return counts[0] + (config.n_layer - 1) * (counts[1] - counts[0])


def captured(step: Callable[[], None]) -> torch.cuda.CUDAGraph:
    """A graph of UNROLLED steps."""
    step()  # compiles the kernels
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(UNROLLED):
            step()
    return graph


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["gpt2", "gpt2-xl"])
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 16, 64])
    parser.add_argument("--steps-only", action="store_true", help="do not time single kernels")
    parser.add_argument("--floor", action="store_true", help="time chains of empty kernels, and nothing else")
    args = parser.parse_args()
    bandwidth = read_bandwidth("cuda")
    print(json.dumps({"gpu": torch.cuda.get_device_name(), "bandwidth_gb_s": round(bandwidth / 1e9)}), flush=True)
    with torch.inference_mode():
        for name in args.models:
            config = PUBLISHED[name].config
            for rows in args.rows:
                (time_floor if args.floor else time_steps)(name, config, rows, bandwidth)
            if args.floor:
                continue
            one = GPT(dataclasses.replace(config, n_layer=1)).cuda().bfloat16().eval()
            for rows in args.rows if not args.steps_only else ():
                time_shapes(name, one, rows, bandwidth)
                time_attention(name, one, rows, bandwidth)


if __name__ == "__main__":
    main()
