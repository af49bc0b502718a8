"""Small models with weights that make a difference, and their checkpoints in other projects' words."""

import dataclasses
import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from gpt2cli.checkpoints.load import load
from gpt2cli.checkpoints.quantized_file import quantize_tensors, share_rows
from gpt2cli.checkpoints.torch_arrays import to_array, to_tensor
from gpt2cli.config import GPTConfig
from gpt2cli.inference.cpu.weight_packing import pack_model
from gpt2cli.inference.cpu_decoder import CPUDecoder
from gpt2cli.model.gpt import GPT

SMALL = GPTConfig(n_layer=2, n_head=3, n_embd=48, block_size=37, vocab_size=50257)


def small_model(config: GPTConfig = SMALL, seed: int = 0) -> GPT:
    """A model whose random weights and biases are large enough for every one of them to show in the logits."""
    torch.manual_seed(seed)
    model = GPT(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def packed(model: GPT, precision: str, threads: int | None = None) -> CPUDecoder:
    """A decoder of compiled loops with a model's weights."""
    arrays = dict(pack_model(model.config, ModelWeights(model), precision))
    return CPUDecoder(model.config, model.origin, precision, arrays, threads)


class ModelWeights:
    """A model's weights as NumPy arrays."""

    def __init__(self, model: GPT) -> None:
        self._tensors = model.state_dict()

    def __getitem__(self, name: str) -> Any:
        return self._tensors[name].numpy()

    def release(self, name: str) -> None:
        """Keep the weight: it belongs to the model."""


@cache
def tiny(precision: str) -> Any:
    """The bundled model, made once for all tests of a process. They change nothing in it."""
    return load("tiny", device="cpu", precision=precision)


def hub_state(model: GPT, prefix: str = "", buffers: bool = True) -> dict[str, Tensor]:
    """As on the Hub: matrices (in, out), with the causal masks as buffers or not."""
    state = {}
    for name, tensor in model.state_dict().items():
        turned = name.startswith("h.") and tensor.dim() == 2
        state[prefix + name] = (tensor.t() if turned else tensor).contiguous()
    size = model.config.block_size
    for block in range(model.config.n_layer if buffers else 0):
        state[f"{prefix}h.{block}.attn.bias"] = torch.ones(1, 1, size, size).tril()
        state[f"{prefix}h.{block}.attn.masked_bias"] = torch.tensor(-1e4)
    return state


def hub_config(config: GPTConfig) -> dict[str, object]:
    return {
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_embd": config.n_embd,
        "n_positions": config.block_size,
        "n_ctx": config.block_size,
        "vocab_size": config.vocab_size,
        "layer_norm_epsilon": config.layer_norm_epsilon,
    }


def save_hub_directory(model: GPT, directory: Path, prefix: str = "") -> Path:
    """Write a model as a directory in the Hub's layout."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(hub_config(model.config)))
    save_file(hub_state(model, prefix, buffers=not prefix), directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def nanogpt_checkpoint(model: GPT) -> dict[str, object]:
    """As nanoGPT's train.py saves it after torch.compile."""
    state = {f"_orig_mod.transformer.{name}": tensor for name, tensor in model.state_dict().items()}
    state["_orig_mod.lm_head.weight"] = model.wte.weight.detach()
    args = {name: getattr(model.config, name) for name in ("n_layer", "n_head", "n_embd", "block_size", "vocab_size")}
    return {
        "model": state,
        "optimizer": {"state": {}, "param_groups": []},
        "model_args": args | {"bias": True, "dropout": 0.0},
        "iter_num": 10,
        "best_val_loss": torch.tensor(3.2),
        "config": {"out_dir": "out"},
    }


def original_state(model: GPT, head: Tensor) -> dict[str, Tensor]:
    """As the original project's model names its tensors, with a head of its own."""
    ours = model.state_dict()
    state = {"tok_emb.weight": ours["wte.weight"], "pos_emb.weight": ours["wpe.weight"], "out_head.weight": head}
    for leaf in ("weight", "bias"):
        state[f"final_norm.{leaf}"] = ours[f"ln_f.{leaf}"]
        for n in range(model.config.n_layer):
            state[f"trf_blocks.{n}.ln1.{leaf}"] = ours[f"h.{n}.ln_1.{leaf}"]
            state[f"trf_blocks.{n}.attn.qkv.{leaf}"] = ours[f"h.{n}.attn.c_attn.{leaf}"]
            state[f"trf_blocks.{n}.attn.out_proj.{leaf}"] = ours[f"h.{n}.attn.c_proj.{leaf}"]
            state[f"trf_blocks.{n}.ln2.{leaf}"] = ours[f"h.{n}.ln_2.{leaf}"]
            state[f"trf_blocks.{n}.mlp.fc1.{leaf}"] = ours[f"h.{n}.mlp.c_fc.{leaf}"]
            state[f"trf_blocks.{n}.mlp.fc2.{leaf}"] = ours[f"h.{n}.mlp.c_proj.{leaf}"]
    return state


def llms_from_scratch_state(model: GPT) -> dict[str, Tensor]:
    """As the book's GPTModel names its tensors: query, key and value apart, the norms with scale and shift."""
    ours, size = model.state_dict(), model.config.block_size
    state = {"tok_emb.weight": ours["wte.weight"], "pos_emb.weight": ours["wpe.weight"]}
    for leaf, norm_leaf in (("weight", "scale"), ("bias", "shift")):
        state[f"final_norm.{norm_leaf}"] = ours[f"ln_f.{leaf}"]
        for n in range(model.config.n_layer):
            q, k, v = ours[f"h.{n}.attn.c_attn.{leaf}"].chunk(3)
            state |= {
                f"trf_blocks.{n}.att.W_{which}.{leaf}": t for which, t in (("query", q), ("key", k), ("value", v))
            }
            state[f"trf_blocks.{n}.att.out_proj.{leaf}"] = ours[f"h.{n}.attn.c_proj.{leaf}"]
            state[f"trf_blocks.{n}.ff.layers.0.{leaf}"] = ours[f"h.{n}.mlp.c_fc.{leaf}"]
            state[f"trf_blocks.{n}.ff.layers.2.{leaf}"] = ours[f"h.{n}.mlp.c_proj.{leaf}"]
            state[f"trf_blocks.{n}.norm1.{norm_leaf}"] = ours[f"h.{n}.ln_1.{leaf}"]
            state[f"trf_blocks.{n}.norm2.{norm_leaf}"] = ours[f"h.{n}.ln_2.{leaf}"]
            state[f"trf_blocks.{n}.att.mask"] = torch.ones(size, size).triu(1)
    return state | {"out_head.weight": ours["wte.weight"].clone()}


def quantized_state(state: dict[str, Tensor], bits: int = 8, occurs: Tensor | None = None) -> dict[str, Tensor]:
    """As `gpt2 quantize` stores these weights, with one row of the embedding for tokens that do not occur."""
    arrays = {name: to_array(tensor) for name, tensor in state.items()}
    if occurs is not None:
        arrays = share_rows(arrays, occurs.numpy())
    return {name: to_tensor(array) for name, array in quantize_tensors(arrays, bits).items()}


def our_checkpoint(model: GPT) -> dict[str, object]:
    return {"config": dataclasses.asdict(model.config), "model": model.state_dict()}
