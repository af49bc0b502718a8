"""Direct logit attribution: what each part of the model adds to the target's logit.

The logit is linear in the residual stream once the standard deviation that the last norm divides by is taken as given
(Elhage et al. 2021). So it is a sum over all that was added to the stream.
"""

from collections.abc import Iterator

from torch import Tensor, nn

from gpt2cli.config import ExplainConfig
from gpt2cli.insight.events import Event
from gpt2cli.insight.findings import Attribution, Contribution
from gpt2cli.insight.subject import Subject, token
from gpt2cli.model.part_names import MLP, Attention, Head


def attribution(subject: Subject, config: ExplainConfig) -> Iterator[Event]:
    """The contributions of all parts to the target's logit, or to target minus foil."""
    logit = float(subject.measure(subject.last_logits))
    yield Attribution(token(subject.target), subject.foil, logit, contributions(subject))


def contributions(subject: Subject) -> tuple[Contribution, ...]:
    """What each part adds at the last place. The sum is the logit, or the difference of logits, but for rounding."""
    model, trace = subject.model, subject.trace
    head = (model.wte if model.lm_head is None else model.lm_head).weight
    # the measured number is linear in the logits, so these are the weights of the final hidden state
    unembedding = _exact(subject.measure(head.T))
    reader = _reader(subject, unembedding)

    def added(part: object, value: Tensor) -> Contribution:
        return Contribution(str(part), float(reader @ _exact(value)))

    found = [added("embedding", trace.embedding[0, -1]), added("position", trace.position[-1])]
    for layer, block in enumerate(model.h):
        output: nn.Linear = block.attn.c_proj  # type: ignore[union-attr, assignment]
        mixes = _exact(trace.mixes[layer][0, :, -1])  # (H, D)
        read = (reader @ _exact(output.weight)).view_as(mixes)  # weights (out, in): the reader of each head's output
        found += [
            Contribution(str(Head(layer, number)), value) for number, value in enumerate((mixes * read).sum(1).tolist())
        ]
        found.append(added(f"{Attention(layer)}.bias", output.bias))
        found.append(added(MLP(layer), trace.mlp[layer][0, -1]))
    found.append(Contribution("ln_f.bias", float(unembedding @ _exact(model.ln_f.bias))))
    return tuple(found)


def _reader(subject: Subject, unembedding: Tensor) -> Tensor:
    """The vector (C,) whose product with the stream at the last place is the measured number, without ln_f.bias."""
    norm = subject.model.ln_f
    final = _exact(subject.trace.final[0, -1])
    weights = unembedding * _exact(norm.weight)
    # the norm subtracts the stream's mean: the same as subtracting the mean of what the stream is multiplied by
    return (weights - weights.mean()) / (final.var(unbiased=False) + norm.eps).sqrt()


def _exact(values: Tensor) -> Tensor:
    """In fp64 on the CPU: parts of a logit can be much larger than the logit, and some devices have no fp64."""
    return values.detach().cpu().double()
