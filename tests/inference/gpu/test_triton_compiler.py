"""Triton compiles every launch of a decode step for a Hopper GPU: a check beyond the interpreter's, without a GPU."""

import pytest
import torch

from gpt2cli.config import GPTConfig, SamplingConfig
from gpt2cli.inference.gpu.cuda_graphs import State
from tests import models

CONFIG = GPTConfig(n_layer=1, n_head=2, n_embd=48, block_size=64, vocab_size=70)
TYPES = {torch.float32: "*fp32", torch.float64: "*fp64", torch.bfloat16: "*bf16", torch.int32: "*i32"}
TYPES[torch.int64] = "*i64"


def compile_launch(kernel, arguments, **options):
    """Compile a kernel for these arguments as Triton's launcher would. Returns the assembly (PTX)."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    assert set(arguments) == {parameter.name for parameter in kernel.params}
    signature, constants = {}, {}
    for place, parameter in enumerate(kernel.params):
        value = arguments[parameter.name]
        if parameter.is_constexpr or value is None:
            signature[parameter.name], constants[(place,)] = "constexpr", value
        else:
            signature[parameter.name] = TYPES[value.dtype] if isinstance(value, torch.Tensor) else "i32"
    source = ASTSource(kernel, signature, constants)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]


@pytest.mark.parametrize("rows", [1, 33])
def test_every_launch_compiles(tmp_path, monkeypatch, rows):
    pytest.importorskip("triton")
    from gpt2cli.inference.gpu import fused_step

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(fused_step, "early_start", lambda *args: 1)
    launched = []

    def launch(step, kernel, grid, launch_pdl=True, num_warps=4, **arguments):
        launched.append(kernel.__name__)
        assembly = compile_launch(kernel, {**arguments, "PDL": step.early}, num_warps=num_warps)
        assert "griddepcontrol.wait" in assembly
        assert "griddepcontrol.launch_dependents" in assembly

    monkeypatch.setattr(fused_step.FusedStep, "_launch", launch)
    model = models.small_model(CONFIG).bfloat16()
    for sampling in (SamplingConfig(temperature=0), SamplingConfig(temperature=0.8, top_k=5)):
        with torch.inference_mode():
            fused_step.FusedStep(model, State(model, rows, 64), sampling)()
    layer = ["matvec_kernel"] if rows == 1 else ["norm_kernel", "matmul_kernel", "combine_kernel"]
    choice = ["greedy_kernel", "top_keys_kernel", "sample_kernel"]
    assert set(launched) == {"embed_kernel", "attend_kernel", *layer, *choice}
