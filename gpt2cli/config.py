"""Every default in one place: the model's shape, the published sizes, how to sample, and how to train."""

import math
from dataclasses import dataclass
from typing import Literal

from gpt2cli.errors import UsageError

VOCAB_SIZE = 50257
"""Tokens in GPT-2's vocabulary; a checkpoint may pad its tables with more rows than that."""

HEAD_SIZE = 64
"""Width of one attention head in every published GPT-2: `n_head` of a checkpoint that does not say."""


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT-2. The defaults are those of the 124M model."""

    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    block_size: int = 1024
    vocab_size: int = VOCAB_SIZE
    dropout: float = 0.1  # only while training
    layer_norm_epsilon: float = 1e-5
    tied: bool = True  # whether the output head is the token embedding

    def __post_init__(self) -> None:
        for name in ("n_layer", "n_head", "n_embd", "block_size", "vocab_size"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise UsageError(f"{name} must be a whole number of at least 1, not {value!r}")
        if self.n_embd % self.n_head:
            raise UsageError(f"n_embd {self.n_embd} cannot be divided among n_head {self.n_head} heads")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout must be at least 0 and below 1, not {self.dropout!r}")

    @property
    def head_size(self) -> int:
        return self.n_embd // self.n_head


@dataclass(frozen=True)
class PublishedModel:
    """A model that goes by a short name: its home on the Hub and its shape."""

    repo: str
    config: GPTConfig


PUBLISHED = {
    "gpt2": PublishedModel("openai-community/gpt2", GPTConfig()),
    "gpt2-medium": PublishedModel("openai-community/gpt2-medium", GPTConfig(24, 16, 1024)),
    "gpt2-large": PublishedModel("openai-community/gpt2-large", GPTConfig(36, 20, 1280)),
    "gpt2-xl": PublishedModel("openai-community/gpt2-xl", GPTConfig(48, 25, 1600)),
    "distilgpt2": PublishedModel("distilbert/distilgpt2", GPTConfig(6, 12, 768)),
}
DEFAULT_MODEL = "gpt2"
TINY = "tiny"
"""The model that comes with the package."""
LESSONS = "lessons"
"""The few dozen instructions that come with the package, as a name for data."""
FINETUNED = "finetuned.pt"
"""Where `finetune` writes, and what `chat` opens, if nobody says otherwise."""


@dataclass(frozen=True)
class SamplingConfig:
    """How the next token is chosen, and when to stop. Raises UsageError for a value out of its range.

    temperature         divides the logits; 0 takes the likeliest token
    top_k               keeps the k likeliest tokens; 0 keeps all
    top_p               keeps the likeliest tokens that together reach this probability
    min_p               drops tokens less likely than this share of the likeliest one's probability
    repetition_penalty  above 1, tokens already in the context become less likely
    seed                sample i draws from a random stream seeded with seed + i; None picks a seed
    stop                texts that end a sample when it comes to them; they are left out
    """

    max_new_tokens: int = 100
    temperature: float = 0.7
    top_k: int = 40
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    num_samples: int = 1

    def __post_init__(self) -> None:
        _check(self.max_new_tokens >= 0, "max_new_tokens", "0 or more", self.max_new_tokens)
        _check(0 <= self.temperature < math.inf, "temperature", "a finite number, 0 or more", self.temperature)
        _check(self.top_k >= 0, "top_k", "0 (off) or more", self.top_k)
        _check(0 < self.top_p <= 1, "top_p", "above 0 and at most 1", self.top_p)
        _check(0 <= self.min_p <= 1, "min_p", "from 0 to 1", self.min_p)
        _check(
            0 < self.repetition_penalty < math.inf,
            "repetition_penalty",
            "a finite number above 0",
            self.repetition_penalty,
        )
        _check(self.seed is None or 0 <= self.seed < 2**63, "seed", "from 0 to 2^63 - 1", self.seed)
        _check(not isinstance(self.stop, str), "stop", "a tuple of texts", f"the text {self.stop!r}")
        _check(all(self.stop), "stop", "a text of at least one character", "''")
        _check(1 <= self.num_samples <= 100_000, "num_samples", "from 1 to 100,000", self.num_samples)


@dataclass(frozen=True)
class TrainConfig:
    """How to train. Raises UsageError for a value out of its range.

    batch_size      records (or blocks of text) in one forward and backward pass
    grad_accum      such passes in one optimizer step
    warmup          optimizer steps in which the learning rate rises to `learning_rate`
    sampled_softmax so many drawn tokens to learn against, in place of all, until the end nears; 0 for all
    max_length      tokens of a record at the most, the response's end included; None: the model's window
    eval_every, sample_every, save_every
                    in optimizer steps; 0 for never, None for a tenth of the run
    patience        end after so many evaluations without a better one; 0 for never
    """

    epochs: int = 3
    max_steps: int | None = None
    batch_size: int = 8
    grad_accum: int = 1
    learning_rate: float = 5e-5
    optimizer: Literal["adamw", "muon"] = "adamw"
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: int = 10
    weight_decay: float = 0.01
    clip: float = 1.0
    dropout: float = 0.1
    sampled_softmax: int = 0
    max_length: int | None = None
    loss_on: Literal["response", "all"] = "response"
    eval_every: int | None = None
    sample_every: int | None = None
    save_every: int | None = None
    patience: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self.epochs >= 1, "epochs", "1 or more", self.epochs)
        _check(self.max_steps is None or self.max_steps >= 1, "max_steps", "1 or more", self.max_steps)
        _check(self.batch_size >= 1, "batch_size", "1 or more", self.batch_size)
        _check(self.grad_accum >= 1, "grad_accum", "1 or more", self.grad_accum)
        _check(0 < self.learning_rate < math.inf, "learning_rate", "a finite number above 0", self.learning_rate)
        _check(self.optimizer in OPTIMIZERS, "optimizer", f"one of {', '.join(OPTIMIZERS)}", self.optimizer)
        _check(self.schedule in SCHEDULES, "schedule", f"one of {', '.join(SCHEDULES)}", self.schedule)
        _check(self.warmup >= 0, "warmup", "0 or more", self.warmup)
        _check(0 <= self.weight_decay < math.inf, "weight_decay", "a finite number, 0 or more", self.weight_decay)
        _check(self.clip > 0, "clip", "above 0", self.clip)
        _check(0 <= self.dropout < 1, "dropout", "at least 0 and below 1", self.dropout)
        _check(self.sampled_softmax >= 0, "sampled_softmax", "0 (off) or more", self.sampled_softmax)
        _check(self.max_length is None or self.max_length >= 2, "max_length", "2 or more", self.max_length)
        _check(self.loss_on in ("response", "all"), "loss_on", "response or all", self.loss_on)
        for name in ("eval_every", "sample_every", "save_every"):
            every = getattr(self, name)
            _check(every is None or every >= 0, name, "0 (never) or more", every)
        _check(self.patience >= 0, "patience", "0 (off) or more", self.patience)
        _check(0 <= self.seed < 2**63, "seed", "from 0 to 2^63 - 1", self.seed)


SCHEDULES = ("cosine", "linear", "constant")
OPTIMIZERS = ("adamw", "muon")


@dataclass(frozen=True)
class LoRAConfig:
    """Low-rank adaptation (Hu et al. 2021): trains alpha / rank * B A beside each frozen matrix of the blocks."""

    rank: int = 16
    alpha: float = 16.0
    learning_rate: float = 3e-4  # adapters take a higher one than whole matrices

    def __post_init__(self) -> None:
        _check(self.rank >= 1, "lora_rank", "1 or more", self.rank)
        _check(0 < self.alpha < math.inf, "lora_alpha", "a finite number above 0", self.alpha)


@dataclass(frozen=True)
class DataConfig:
    """How records become training data."""

    val_fraction: float = 0.1
    test_fraction: float = 0.05
    subset: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _check(0 <= self.val_fraction < 1, "val_fraction", "at least 0 and below 1", self.val_fraction)
        _check(0 <= self.test_fraction < 1, "test_fraction", "at least 0 and below 1", self.test_fraction)
        _check(self.val_fraction + self.test_fraction < 1, "val_fraction + test_fraction", "below 1", "more")
        _check(self.subset is None or self.subset >= 1, "subset", "1 or more", self.subset)


def _check(holds: bool, name: str, must_be: str, value: object) -> None:
    if not holds:
        raise UsageError(f"{name} must be {must_be}, not {value}")


CHAT = SamplingConfig(max_new_tokens=256)
"""An answer has an end of its own, unlike a text: the limit is there for models that do not find it."""

ANSWERS = SamplingConfig(max_new_tokens=256, temperature=0, seed=0)
"""What answers are compared with references is to be the same every time."""


@dataclass(frozen=True)
class EvaluationConfig:
    """How to evaluate. Raises UsageError for a value out of its range.

    stride      tokens by which the window moves over plain text; None: half of the window
    answers     instructions that are answered, drawn by chance; 0 for none
    sampling    how the answers are; answer i draws from a random stream seeded with its seed + i
    bertscore   whether to compare answers by BERTScore too, with the model `bertscore_model`
    resamples   of the bootstrap, from which the intervals come; `seed` is its own
    """

    stride: int | None = None
    answers: int = 64
    sampling: SamplingConfig = ANSWERS
    bertscore: bool = False
    bertscore_model: str = "roberta-large"
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self.stride is None or self.stride >= 1, "stride", "1 or more", self.stride)
        _check(self.answers >= 0, "answers", "0 (none) or more", self.answers)
        _check(self.sampling.max_new_tokens >= 1, "max_new_tokens", "1 or more", self.sampling.max_new_tokens)
        _check(self.resamples >= 1, "resamples", "1 or more", self.resamples)


@dataclass(frozen=True)
class BenchConfig:
    """How to measure speed. Raises UsageError for a value out of its range.

    prompt_tokens   tokens that are read in one pass
    new_tokens      tokens that are written, the first of which comes of reading
    repeats         such runs, of whose speeds the median is told
    seed            of the prompt, whose tokens are drawn by chance
    """

    prompt_tokens: int = 64
    new_tokens: int = 128
    repeats: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self.prompt_tokens >= 1, "prompt_tokens", "1 or more", self.prompt_tokens)
        _check(self.new_tokens >= 2, "new_tokens", "2 or more (the first comes of reading)", self.new_tokens)
        _check(self.repeats >= 1, "repeats", "1 or more", self.repeats)
