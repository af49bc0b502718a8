"""Every default in one place: the model's shape, how to sample, train, evaluate and measure."""

from dataclasses import dataclass
from typing import Literal

from gpt2cli.bounds import (
    AT_LEAST_1,
    AT_LEAST_2,
    BELOW_1,
    FINITE_NOT_NEGATIVE,
    FINITE_POSITIVE,
    FROM_0_TO_1,
    FROM_1_TO_1000,
    NEVER_AT_0,
    NOT_NEGATIVE,
    OFF_AT_0,
    POSITIVE,
    SEED,
    UP_TO_1,
    WHOLE,
    Bounds,
    Checked,
    FieldError,
    check,
    described,
)

VOCAB_SIZE = 50257
"""The number of tokens in GPT-2's vocabulary. A checkpoint may pad its tables with more rows."""

MOST_LOGPROBS = 100
"""The most likely tokens whose log-probabilities are listed at each place of a generated text."""

HEAD_SIZE = 64
"""The width of an attention head in every published GPT-2. It gives `n_head` if a checkpoint does not."""


@dataclass(frozen=True)
class GPTConfig(Checked):
    """The shape of a GPT-2. The defaults are those of the 124M model. Raises UsageError for an impossible shape."""

    n_layer: int = described(12, WHOLE, "Number of blocks.")
    n_head: int = described(12, WHOLE, "Attention heads in each block.")
    n_embd: int = described(768, WHOLE, "Width of the embedding.")
    block_size: int = described(1024, WHOLE, "Length of the context window in tokens.")
    vocab_size: int = described(VOCAB_SIZE, WHOLE)
    dropout: float = described(0.1, BELOW_1)  # only while training
    layer_norm_epsilon: float = described(1e-5, FINITE_NOT_NEGATIVE)
    tied: bool = True  # whether the output head is the token embedding

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_embd % self.n_head:
            raise FieldError("n_embd", f"{self.n_embd} cannot be divided among n_head {self.n_head} heads")

    @property
    def head_size(self) -> int:
        return self.n_embd // self.n_head


LESSONS = "lessons"
"""The name of the bundled data: 438 instructions with answers."""
FINETUNED = "finetuned.pt"
"""The default file that `finetune` writes and `chat` opens."""
FULL_RATE, LORA_RATE = 5e-5, 5e-4
"""The default learning rates. Adapters need about ten times that of whole matrices ("LoRA Without Regret", 2025)."""


@dataclass(frozen=True)
class SamplingConfig(Checked):
    """How to choose the next token, and when to stop. Raises UsageError for a value out of its bounds."""

    max_new_tokens: int = described(100, NOT_NEGATIVE, "Largest number of tokens to generate.")
    temperature: float = described(
        0.7,
        FINITE_NOT_NEGATIVE,
        "Sampling temperature: below 1 less random, above 1 more random; 0 always takes the most likely token.",
    )
    top_k: int = described(40, OFF_AT_0, "Sample from the k most likely tokens; 0: from all.")
    top_p: float = described(1.0, UP_TO_1, "Sample from the most likely tokens that together reach this probability.")
    min_p: float = described(
        0.0, FROM_0_TO_1, "Exclude tokens with less than this fraction of the most likely token's probability."
    )
    repetition_penalty: float = described(
        1.0, FINITE_POSITIVE, "Above 1, tokens that are already in the text become less likely."
    )
    seed: int | None = described(
        None, SEED, "Random seed: the same seed gives the same text. Sample i uses seed + i.", means="random"
    )
    stop: tuple[str, ...] = ()  # a sample ends before any of these texts
    num_samples: int = described(
        1, Bounds("from 1 to 100,000", lambda value: 1 <= value <= 100_000), "Number of samples, made in one batch."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check(not isinstance(self.stop, str), "stop", "a tuple of texts", f"the text {self.stop!r}")
        check(all(self.stop), "stop", "a text of at least one character", "''")


@dataclass(frozen=True)
class TrainConfig(Checked):
    """How to train. Raises UsageError for a value out of its bounds.

    None for an interval (`eval_every`, `sample_every`, `save_every`) means that the time decides, 0 means never: see
    training/rhythm.py.
    """

    epochs: int = described(3, AT_LEAST_1, "Passes over the data.")
    max_steps: int | None = described(None, AT_LEAST_1, "Optimizer steps, instead of --epochs.")
    batch_size: int = described(8, AT_LEAST_1, "Records (or blocks of text) in one forward and backward pass.")
    grad_accum: int = described(1, AT_LEAST_1, "Forward and backward passes in one optimizer step.")
    learning_rate: float = described(
        FULL_RATE, FINITE_POSITIVE, "The peak learning rate.", means=f"{FULL_RATE:g}, {LORA_RATE:g} with --lora"
    )
    optimizer: Literal["adamw", "muon"] = described(
        "adamw",
        help="adamw (betas 0.9, 0.999) for pretrained weights; muon, which learns faster, for training from scratch. "
        "muon can make weights worse that AdamW pretrained.",
    )
    schedule: Literal["cosine", "linear", "constant", "wsd"] = described(
        "cosine",
        help="The learning rate after the warm-up: cosine and linear fall to 0, constant stays, wsd stays and falls to "
        "0 at the end of the run.",
    )
    cooldown: float = described(
        0.4, UP_TO_1, "With --schedule wsd, the fraction of the steps in which the learning rate falls, at the end."
    )
    warmup: int | None = described(
        None,
        NOT_NEGATIVE,
        "Number of first steps in which the learning rate rises linearly to --lr.",
        means="10, at most a tenth of the steps",
    )
    weight_decay: float = described(
        0.01, FINITE_NOT_NEGATIVE, "Decoupled weight decay. Only matrices decay, not biases and LayerNorms."
    )
    clip: float = described(1.0, POSITIVE, "A gradient with a larger norm is scaled down to this norm.")
    dropout: float = described(0.1, BELOW_1, "The probability of dropping an activation.")
    sampled_softmax: int = described(
        0,
        OFF_AT_0,
        "For most of the run, compute the loss over this many sampled tokens, not over all: faster for narrow models.",
        means="all",
    )
    max_length: int | None = described(
        None, AT_LEAST_2, "The largest number of tokens in a record. Longer records are cut.", means="the window"
    )
    loss_on: Literal["response", "all"] = described(
        "response", help="The tokens that count in the loss: only those of the responses, or all."
    )
    eval_every: int | None = described(
        None, NEVER_AT_0, "Evaluate every N steps; 0: never.", means="10 times, as time permits", in_identity=False
    )
    sample_every: int | None = described(
        None,
        NEVER_AT_0,
        "Generate answers to the sample prompts every N steps; 0: never.",
        means="3 times, as time permits",
        in_identity=False,
    )
    save_every: int | None = described(
        None,
        NEVER_AT_0,
        "Save every N steps; 0: no checkpoints, no best.pt.",
        means="every 5 minutes",
        in_identity=False,
    )
    patience: int = described(
        0, OFF_AT_0, "Stop after this many evaluations without a lower validation loss; 0: never.", in_identity=False
    )
    seed: int = described(0, SEED, "Seed of all random choices.")


TrainingPrecision = Literal["auto", "fp32", "bf16"]
"""The number formats of the computation while training."""
ADAPTED = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
"""The linear layers of a block. With LoRA, each gets an adapter."""


@dataclass(frozen=True)
class LoRAConfig(Checked):
    """Low-rank adaptation (Hu et al. 2021): trains alpha / rank * B A beside each frozen matrix of the blocks."""

    rank: int = described(16, AT_LEAST_1, "The rank of the adapter.", name="lora_rank")
    alpha: float = described(16.0, FINITE_POSITIVE, "The adapter is scaled by alpha / rank.", name="lora_alpha")
    learning_rate: float = described(LORA_RATE, FINITE_POSITIVE, name="lora_learning_rate")


@dataclass(frozen=True)
class DataConfig(Checked):
    """How records become training data. Raises UsageError for a value out of its bounds."""

    val_fraction: float = described(
        0.1,
        BELOW_1,
        "The fraction of the records that is used for validation. Of several texts whole ones are used, of one its "
        "end.",
    )
    test_fraction: float = described(0.05, BELOW_1)
    subset: int | None = described(None, AT_LEAST_1, "Use only this many records, chosen at random.", means="all")
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.val_fraction + self.test_fraction < 1, "val_fraction + test_fraction", "below 1", "more")


@dataclass(frozen=True)
class ServeConfig(Checked):
    """How to serve a model over HTTP. Raises UsageError for a value out of its bounds.

    api_key       what clients must send; None: nothing
    cors_origins  the origins, such as http://localhost:3000, whose pages may use the server
    """

    host: str = described(
        "127.0.0.1", help="The address to listen at. Other machines can reach any but a loopback address."
    )
    port: int = described(
        8000, Bounds("from 0 to 65,535", lambda value: 0 <= value <= 65535), "The port; 0: a free one."
    )
    api_key: str | None = None
    cors_origins: tuple[str, ...] = ()
    slots: int = described(
        8, Bounds("from 1 to 1,024", lambda value: 1 <= value <= 1024), "Texts that are generated at a time."
    )
    max_queue: int = described(64, NOT_NEGATIVE, "Requests that may wait for a slot.")


CHAT = SamplingConfig(max_new_tokens=256)
"""For chat. An answer usually ends before the limit, with the end-of-text token."""

ANSWERS = SamplingConfig(max_new_tokens=256, temperature=0, seed=0)
"""For evaluation. The same answers are generated every time."""


@dataclass(frozen=True)
class EvaluationConfig(Checked):
    """How to evaluate. Raises UsageError for a value out of its bounds.

    stride      tokens between the starts of two windows of plain text; None: half of the window
    answers     how many instructions to answer, chosen at random; 0: none
    sampling    how to sample the answers; answer i has the seed `sampling.seed + i`
    bertscore   whether to compute BERTScore for the answers, with the model `bertscore_model`
    resamples   how many bootstrap samples the confidence intervals are computed from; their seed is `seed`
    """

    stride: int | None = described(
        None, AT_LEAST_1, "The number of tokens by which the window moves over plain text.", means="half of the window"
    )
    answers: int = described(
        64,
        Bounds("0 (none) or more", lambda value: value >= 0),
        "The number of instructions to answer, chosen at random; 0 for none.",
        means="64, all without a model",
    )
    sampling: SamplingConfig = ANSWERS
    bertscore: bool = described(False, help="Also compute BERTScore. It needs the package bert-score.")
    bertscore_model: str = described(
        "roberta-large", help="The model for BERTScore: a name that bert-score knows, or a directory."
    )
    resamples: int = described(1000, AT_LEAST_1)
    seed: int = described(0, SEED, "The random seed. The same seed chooses the same records.")

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.sampling.max_new_tokens >= 1, "max_new_tokens", "1 or more", str(self.sampling.max_new_tokens))


@dataclass(frozen=True)
class BenchConfig(Checked):
    """How to measure speed. Raises UsageError for a value out of its bounds. `seed` is that of the random prompt."""

    prompt_tokens: int = described(64, AT_LEAST_1, "The number of tokens in the prompt.")
    new_tokens: int = described(
        128,
        Bounds("2 or more (the first is computed with the prompt)", lambda value: value >= 2),
        "The number of tokens to generate.",
    )
    repeats: int = described(3, AT_LEAST_1, "The number of runs after a warm-up run. The medians are reported.")
    seed: int = 0


@dataclass(frozen=True)
class ExplainConfig(Checked):
    """How to explain a prompt. Raises UsageError for a value out of its bounds."""

    top: int = described(
        10, FROM_1_TO_1000, "The number of likely tokens to list at each place. The target and the foil are added."
    )
    ablation: Literal["zero", "mean"] = described(
        "zero",
        help="The part `ablation` replaces the output of each head and MLP by zero, or by its mean over the prompt.",
    )
    steps: int = described(32, FROM_1_TO_1000, "The number of steps of integrated gradients, in the part `saliency`.")
    seed: int = described(0, SEED, "The seed of the random sequence on which heads are labelled.")
