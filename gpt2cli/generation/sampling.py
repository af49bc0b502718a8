"""From logits to the next token: penalise, cool, cut, draw."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2cli.config import VOCAB_SIZE, SamplingConfig
from gpt2cli.errors import DivergedError

ROWS = 32
"""Into so many rows logits are laid to find the largest: the fewest steps for a vocabulary of 50,257."""


class Sampler:
    """Chooses the next tokens of a batch. Row i draws from a random stream of its own, seeded with `seeds[i]`.

    The streams live on the CPU, one uniform number a token, so that a seed means the same text on every device and
    in every batch.
    """

    def __init__(self, config: SamplingConfig, seeds: Sequence[int]) -> None:
        self.config = config
        self._streams = [torch.Generator().manual_seed(seed) for seed in seeds]

    def choose(self, logits: Tensor, contexts: Sequence[Sequence[int]], rows: Sequence[int]) -> list[int]:
        """The next token of each of `rows`, given its logits (len(rows), V) and the tokens it has so far.

        Raises DivergedError if a largest logit is not finite.
        """
        logits = logits[:, :VOCAB_SIZE].float()  # rows that pad a checkpoint's table stand for no text
        if self.config.repetition_penalty != 1:
            logits = penalise_repetition(logits, contexts, self.config.repetition_penalty)
        if self.config.temperature == 0:
            best, ids = logits.max(dim=-1)
            check(best.tolist(), contexts)
            return [int(token) for token in ids]
        probabilities, ids = distribution(logits, self.config)
        check(probabilities[:, 0].tolist(), contexts)
        uniform = torch.stack([torch.rand((), generator=self._streams[row], dtype=torch.float64) for row in rows])
        return [int(token) for token in draw(probabilities, ids, uniform)]

    def choose_on_device(self, logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """The next tokens (B,) and the largest logits (B,), which nobody has checked, of logits (B, V).

        `uniform`, (B,), are numbers that `uniform` drew. Nothing waits for the device, and no shape depends on values.
        """
        if self.config.temperature == 0:
            best, ids = logits.max(dim=-1)
            return ids, best
        values, ids = largest(logits, min(self.config.top_k or logits.shape[-1], logits.shape[-1]))
        return draw(cut(values, self.config), ids, uniform), values[:, 0]

    def uniform(self, steps: int) -> Tensor:
        """The numbers (steps, B) that the next tokens of all rows are drawn with, taken from their streams."""
        return torch.stack([torch.rand(steps, generator=s, dtype=torch.float64) for s in self._streams], dim=1)


def check(best: Sequence[float], contexts: Sequence[Sequence[int]]) -> None:
    """Raise DivergedError if a row's largest logit, or probability, is not finite."""
    advice = "try --precision fp32, another checkpoint, or a milder repetition penalty"
    for value, context in zip(best, contexts, strict=True):
        if not -math.inf < value < math.inf:
            raise DivergedError(f"the model's logits are not finite at token {len(context)}: {advice}")


def penalise_repetition(logits: Tensor, contexts: Sequence[Sequence[int]], penalty: float) -> Tensor:
    """Logits (B, V) with those of the tokens in each context divided by the penalty, or multiplied if negative.

    Keskar et al. 2019, "CTRL", section 4.1, in the form that treats negative logits rightly (transformers).
    """
    logits = logits.clone()
    for row, context in zip(logits, contexts, strict=True):
        seen = torch.tensor(sorted(set(context)), device=logits.device)
        values = row[seen]
        row[seen] = torch.where(values > 0, values / penalty, values * penalty)
    return logits


def distribution(logits: Tensor, config: SamplingConfig) -> tuple[Tensor, Tensor]:
    """The probabilities (B, K) of the tokens that may come next, most likely first, and their ids (B, K).

    Temperature, then top-k, top-p (Holtzman et al. 2019, nucleus sampling) and min-p (Nguyen et al. 2024), each on
    what the one before it left. Tokens that top-p or min-p cut have probability 0.
    """
    k = min(config.top_k or logits.shape[-1], logits.shape[-1])
    values, ids = (found.cpu() for found in largest(logits, k))  # sorted; little is left to do with them
    return cut(values, config), ids


def cut(values: Tensor, config: SamplingConfig) -> Tensor:
    """The probabilities (B, K) of the K largest logits, (B, K) in order."""
    values = values.double()  # where a temperature near 0 is not 0
    probabilities = ((values - values[:, :1]) / config.temperature).softmax(dim=-1)
    if config.top_p < 1:
        before = probabilities.cumsum(dim=-1) - probabilities
        probabilities = probabilities.masked_fill(before >= config.top_p, 0)
    if config.min_p > 0:
        probabilities = probabilities.masked_fill(probabilities < config.min_p * probabilities[:, :1], 0)
    return probabilities / probabilities.sum(dim=-1, keepdim=True)


def largest(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As `logits.topk(k)` for (B, V), in half the time.

    V numbers are laid in columns: the k largest are in those k columns that have the largest maxima.
    """
    columns = -(-logits.shape[-1] // ROWS)
    if k >= columns // 2:
        values, ids = logits.topk(k, dim=-1)
        return values, ids
    table = F.pad(logits, (0, ROWS * columns - logits.shape[-1]), value=-math.inf).view(-1, ROWS, columns)
    chosen = table.amax(dim=1).topk(k).indices  # (B, k)
    candidates = table.gather(2, chosen[:, None].expand(-1, ROWS, -1)).flatten(1)
    values, places = candidates.topk(k)
    ids = places // k * columns + chosen.gather(1, places % k)
    return values, ids


def draw(probabilities: Tensor, ids: Tensor, uniform: Tensor) -> Tensor:
    """One of `ids` (B, K) a row, (B,), by inverting the cumulative `probabilities` (B, K) at `uniform` (B,) in [0, 1).

    Probabilities of 0 stand at the end of a row.
    """
    cumulative = probabilities.cumsum(dim=-1)
    index = torch.searchsorted(cumulative, uniform[:, None], right=True)
    last = (probabilities > 0).sum(dim=-1, keepdim=True) - 1  # rounding may end the sum a little below 1
    index = index.minimum(last).clamp(min=0)  # 0 where all are NaN: a GPU must not index with -1
    return ids.gather(1, index)[:, 0]
