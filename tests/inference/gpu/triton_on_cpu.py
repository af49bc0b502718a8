"""Decoding by the Triton kernels on the CPU. test_triton_kernels.py runs it as a program with TRITON_INTERPRET=1."""

import copy
import gc
import sys

import numpy as np
import torch
import triton.runtime.interpreter as interpreter

from gpt2cli.config import GPTConfig, SamplingConfig
from gpt2cli.generation.decode import generate_tokens
from gpt2cli.generation.prefill import prefill
from gpt2cli.inference.gpu import fused_step, launch_shapes, triton_overlap
from gpt2cli.inference.gpu.cuda_graphs import State
from gpt2cli.inference.gpu.graph_decoder import GraphDecoder
from gpt2cli.inference.gpu.torch_sampling import choose_on_device
from gpt2cli.inference.torch_decoder import TorchDecoder
from tests import models

CONFIG = GPTConfig(n_layer=1, n_head=2, n_embd=48, block_size=8, vocab_size=70)
PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9], [1, 2, 3]]


def texts(model, prompts, sampling):
    found = [[] for _ in prompts]
    for row, token in generate_tokens(model, prompts, sampling, range(7, 7 + len(prompts))):
        found[row].append(token)
    return found


def check_texts(rows, **options):
    """The kernels write what PyTorch writes."""
    plain = models.small_model(CONFIG)
    fused = GraphDecoder(copy.deepcopy(plain), fused=True)
    sampling, prompts = SamplingConfig(**options), (PROMPTS * 5)[:rows]
    assert texts(fused, prompts, sampling) == texts(plain, prompts, sampling), (rows, options)


@torch.inference_mode()
def check_step(rows, capacity, lengths, dtype=torch.float32, tolerance=1e-4, n_layer=2, splits=1):
    """The logits after a step are those of the model. All widths are padded, and some splits are empty."""
    config = GPTConfig(n_layer=n_layer, n_head=3, n_embd=36, block_size=capacity, vocab_size=90)
    model = models.small_model(config).to(dtype)
    idx = torch.randint(0, 90, (rows, capacity))
    state = State(model, rows, capacity)
    for row, length in enumerate(lengths):
        if length:
            _, cache = prefill(TorchDecoder(model), [idx[row, :length].tolist()], length)
            for layer in range(n_layer):
                state.keys[layer, row, :, :length] = cache.k[layer][0]
                state.values[layer, row, :, :length] = cache.v[layer][0]
    state.lengths.copy_(torch.tensor(lengths))
    state.tokens.copy_(idx[range(rows), lengths])
    step = fused_step.FusedStep(model, state, None)
    assert step.splits == splits
    step()
    expected = torch.stack([model(idx[row : row + 1, : length + 1])[0, -1] for row, length in enumerate(lengths)])
    torch.testing.assert_close(state.logits, expected.float(), atol=tolerance, rtol=tolerance)


def check_splits(rows, lengths):
    """Programs may share the tokens of a head, and the sums of a product: in two or more parts."""

    def shape(N, K, block_b, may_split):  # parts of one block of 16 inputs, or of three
        return (16, 16, 4, 4, 4) if N == 36 else launch_shapes.matmul_shape(N, K, block_b, may_split)

    fused_step.matmul_shape = shape
    for splits in (2, 4):
        launch_shapes.PROCESSORS = 2 * rows * 3 - (splits == 2)
        check_step(rows, 70, lengths, splits=splits)


def check_early_start():
    """The kernels compute the same if they start early, and all that they prefetch is within a matrix."""
    calls = []

    def prefetch(asm, constraints, args, dtype, **options):
        addresses = args[0].handle.data
        tensors = [part for part in gc.get_objects() if type(part) is torch.nn.Parameter]
        starts = np.array([part.data_ptr() for part in tensors])
        ends = starts + [part.nbytes for part in tensors]
        inside = (addresses[..., None] >= starts) & (addresses[..., None] < ends)
        assert inside.any(-1).all()
        calls.append("prefetch")

    triton_overlap.tl.inline_asm_elementwise = prefetch
    triton_overlap.gdc_wait = lambda: calls.append("wait")
    triton_overlap.gdc_launch_dependents = lambda: calls.append("start next")
    for early, order in ((1, ["wait", "start next"]), (2, ["start next", "wait"])):
        fused_step.early_start = lambda *args, early=early: early
        for rows in (1, 2):
            calls.clear()
            check_step(rows, 9, [8, 3][:rows], n_layer=1)
            assert "prefetch" in calls
            assert [call for call in calls if call != "prefetch"] == order * calls.count("wait")


@torch.inference_mode()
def check_choice(rows, V, rounded=False, **options):
    """The kernels draw what `choose_on_device` does, also among equal logits, and with numbers at the end of [0, 1)."""
    sampling = SamplingConfig(**options)
    model = models.small_model(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=4, vocab_size=V))
    state = State(model, rows, 4)
    step = fused_step.FusedStep(model, state, sampling)
    state.logits.normal_(generator=torch.Generator().manual_seed(1)).mul_(3)
    if rounded:  # so that many tie with the k-th
        state.logits.mul_(2).round_()
    state.uniform[0] = torch.tensor([0.6, 0, 1 - 1e-12], dtype=torch.float64)[:rows]
    step._choose(sampling)
    drawn, _ = choose_on_device(state.logits, state.uniform[0], sampling)
    assert state.drawn[0].tolist() == drawn.tolist()
    assert torch.equal(state.largest[0], state.logits.amax(1))
    assert (state.lengths.tolist(), state.slots.tolist()) == ([1] * rows, [1] * rows)
    state.logits[0, 5] = torch.nan
    step._choose(sampling)
    assert state.largest[1, 0] == torch.inf


CASES = {
    "steps of one row": lambda: [check_step(1, 80, [length]) for length in (0, 2, 79)],
    "steps of rows": lambda: check_step(3, 70, [0, 5, 69]),
    "splits of one row": lambda: [check_splits(1, [length]) for length in (0, 2, 69)],
    "splits of rows": lambda: check_splits(3, [0, 5, 69]),
    "early starts": check_early_start,
    "steps in 16 bits": lambda: (
        check_step(1, 9, [8], torch.bfloat16, 0.1),
        check_step(2, 9, [8, 3], torch.float16, 0.02),  # the interpreter's dot product does not support bf16
    ),
    "many rows": lambda: check_step(66, 4, [1] * 66, n_layer=1),
    "a greedy text": lambda: check_texts(1, temperature=0, max_new_tokens=9),
    "greedy texts": lambda: check_texts(4, temperature=0, max_new_tokens=9),
    "a drawn text": lambda: check_texts(1, temperature=1.3, top_k=3, max_new_tokens=3),
    "drawn texts": lambda: check_texts(2, temperature=1.3, top_k=3, max_new_tokens=2),
    "a text drawn from all": lambda: check_texts(1, temperature=1.3, top_k=0, max_new_tokens=3),
    "choices": lambda: (
        check_choice(1, 1030, temperature=0.8, top_k=20),
        check_choice(3, 60, temperature=2.0, top_k=30, top_p=0.7, min_p=0.05),
        check_choice(3, 60, rounded=True, temperature=2.0, top_k=32),
    ),
}


def main():
    original = interpreter._patch_lang_tensor

    def patched(tensor, scope):  # NumPy 2.4 does not convert an array of one number to an index
        original(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patched
    launch_shapes.PROCESSORS = 2  # few programs: each costs milliseconds here
    torch.set_num_threads(1)
    CASES[sys.argv[1]]()


if __name__ == "__main__":
    main()
