"""The formats of exports, as `--format` and `--dtype` name them."""

from dataclasses import dataclass

from gpt2cli.checkpoints import adapter_files
from gpt2cli.outputs import CHECKPOINT_SUFFIXES

PLAIN_DTYPES = ("f32", "f16", "bf16")
"""The types of weights in most formats, by llama.cpp's names. The first is the default."""
CARD = "README.md"
HUB_FILES = (
    *("config.json", "generation_config.json", "model.safetensors"),
    *("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"),
    CARD,
)
"""All files of a model in the format of transformers."""


@dataclass(frozen=True)
class Format:
    """The result of an export: one file, whose name ends in one of `suffixes`, or a directory that holds only `files`.

    dtypes       the types that weights may be written in, the default first; if empty, they keep their type
    goes_to_hub  whether it may be uploaded to the Hub
    """

    suffixes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = PLAIN_DTYPES
    goes_to_hub: bool = False


FORMATS = {
    "hf": Format(files=HUB_FILES, goes_to_hub=True),
    "gguf": Format(suffixes=(".gguf",), dtypes=(*PLAIN_DTYPES, "q8_0"), goes_to_hub=True),
    "peft": Format(files=(adapter_files.CONFIG, adapter_files.WEIGHTS, CARD), dtypes=(), goes_to_hub=True),
    "nanogpt": Format(suffixes=CHECKPOINT_SUFFIXES),
    "original": Format(suffixes=CHECKPOINT_SUFFIXES),
    "gpt2cli": Format(suffixes=CHECKPOINT_SUFFIXES),
}
OTHER_NAMES = {
    **dict.fromkeys(("huggingface", "transformers", "safetensors", "hub"), "hf"),
    **dict.fromkeys(("llamacpp", "llama", "ollama", "ggml"), "gguf"),
    **dict.fromkeys(("lora", "adapter"), "peft"),
    **dict.fromkeys(("pt", "pytorch", "pth", "torch"), "gpt2cli"),
    "onnx": "hf, which Optimum converts to ONNX",
}
"""What other programs call these formats."""
DTYPES = FORMATS["gguf"].dtypes
"""All types that weights can be written in."""
OTHER_DTYPES = {
    **dict.fromkeys(("fp32", "float32", "float"), "f32"),
    **dict.fromkeys(("fp16", "float16", "half"), "f16"),
    **dict.fromkeys(("q8", "int8", "8bit"), "q8_0"),
    "bfloat16": "bf16",
}
"""What other programs call these types."""
