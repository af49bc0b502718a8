"""Compare an explanation of GPT-2 small with figures that others have published.

    python tests/published_figures.py [--model gpt2|DIRECTORY]

Needs GPT-2's real weights: a published name that `gpt2 download-weights` has downloaded, or a directory in the Hub's
layout. Nothing is downloaded. Prints a line a figure: what it is, what is published, what is found, and whether they
agree. Exits with 0 if all agree, with 1 if one does not, and with 2 without weights, or with those of another size.

Sources: TransformerLens (tests/acceptance/test_hooked_transformer.py; demos Activation_Patching_in_TL_Demo and
Exploratory_Analysis_Demo); Wang et al. 2022, "Interpretability in the Wild" (arXiv 2211.00593), for the indirect
object, with the names of heads in ACDC's acdc/ioi/utils.py; designer-coderajay/induction-head-detector for induction
scores; McDougall et al. 2023, "Copy Suppression" (2310.04625); Hanna et al. 2023, "How does GPT-2 compute
greater-than?" (2305.00586), and ashioyajotham/greater-than-circuit for the figure of this prompt.
"""

import argparse
import dataclasses
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from gpt2cli.checkpoints.load import load_plain
from gpt2cli.config import ExplainConfig
from gpt2cli.errors import GPT2Error
from gpt2cli.insight.explain import FINDERS
from gpt2cli.insight.passes import Site, logits, trace
from gpt2cli.insight.question import Question
from gpt2cli.insight.subject import Subject
from gpt2cli.model.gpt import GPT
from gpt2cli.tokenizer import encode, show

IOI = (  # the indirect object, the subject, and a sentence about both
    (" Mary", " John", "When John and Mary went to the shops,{} gave the bag to"),
    (" Tom", " James", "When Tom and James went to the park,{} gave the ball to"),
    (" Dan", " Sid", "When Dan and Sid went to the shops,{} gave an apple to"),
    (" Martin", " Amy", "After Martin and Amy went to the park,{} gave a drink to"),
)
IOI_HEADS = {
    "name mover": "9.9 10.0 9.6",
    "backup": "10.10 10.6 10.2 10.1 11.2 9.7 9.0 11.9",
    "negative": "10.7 11.10",
    "S-inhibition": "7.3 7.9 8.6 8.10",
    "induction": "5.5 5.8 5.9 6.9",
    "duplicate": "0.1 0.10 3.0",
    "previous": "2.2 4.11",
}
INDUCTION_SCORES = {"5.5": 0.932, "6.9": 0.913, "7.10": 0.910, "5.1": 0.908, "7.2": 0.833}
BEGINNING = "<|endoftext|>"


@dataclasses.dataclass(frozen=True)
class Figure:
    name: str
    published: str
    found: str
    agrees: bool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="gpt2", help="a downloaded model, or a directory in the Hub's layout")
    arguments = parser.parse_args()
    try:
        model = load_plain(arguments.model, device="cpu", offline=True)
    except GPT2Error as error:
        print(f"{error}\nRun `gpt2 download-weights gpt2`, or give --model DIRECTORY.", file=sys.stderr)
        return 2
    if (model.config.n_layer, model.config.n_head, model.config.n_embd) != (12, 12, 768):
        print("the figures are those of the 124M model: 12 layers, 12 heads, 768 channels", file=sys.stderr)
        return 2
    print(f"{'figure':<36}{'published':<44}{'found':<64}agrees")
    agrees = True
    for figures in (loss, indirect_object, head_kinds, copy_suppression, greater_than, first_token):
        for figure in figures(model):
            agrees &= figure.agrees
            print(
                f"{figure.name:<36}{figure.published:<44}{figure.found:<64}{'yes' if figure.agrees else 'NO'}",
                flush=True,
            )
    return 0 if agrees else 1


def subject(
    model: GPT, prompt: str, target: str | None = None, foil: str | None = None, against: str | None = None
) -> Subject:
    """A question about a prompt that follows `<|endoftext|>`, as in these publications."""
    token = [None if text is None else encode(text)[0] for text in (target, foil)]
    other = None if against is None else tuple(encode(BEGINNING + against))
    return Subject(model, Question(tuple(encode(BEGINNING + prompt)), *token, other))


def found(part: str, of: Subject) -> Any:
    """The finding of a part, its last event."""
    *_, last = FINDERS[part](of, ExplainConfig())
    return last


def number(name: str, published: float, value: float, tolerance: float) -> Figure:
    return Figure(name, f"{published} +- {tolerance:g}", f"{value:.6f}", abs(value - published) <= tolerance)


def loss(model: GPT) -> Iterator[Figure]:
    rows = found("tokens", subject(model, "Hello world!")).rows
    yield number("loss of 'Hello world!'", 5.331856, -sum(row.logprob for row in rows[1:]) / len(rows[1:]), 4e-5)


def indirect_object(model: GPT) -> Iterator[Figure]:
    """The mean over prompts of target minus foil, and the heads that make it."""
    questions = []
    for one, other, sentence in IOI:
        for target, giver in ((one, other), (other, one)):
            questions.append(subject(model, sentence.format(giver), target, giver, sentence.format(target)))
    differences = [float(each.measure(each.last_logits)) for each in questions]
    yield number("IOI: logit difference", 3.5519, sum(differences) / len(differences), 1e-3)
    added: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    restored: Counter[str] = Counter()
    for question in questions:
        added.update({part.part: part.contribution for part in found("attribution", question).parts})
    for question in questions[::2]:  # these are many passes
        lost.update({row.part: row.change for row in found("ablation", question).rows})
        rows = found("patching", question).heads
        restored.update({f"{n}.{head}": value for n, row in enumerate(rows) for head, value in enumerate(row)})
    heads = [name for name in added if name.replace(".", "").isdigit()]
    in_order = sorted(heads, key=added.__getitem__)
    yield names("IOI: add the most", ["9.6", "9.9"], in_order[::-1], 2)
    yield names("IOI: subtract the most", ["10.7", "11.10"], in_order, 2)
    circuit = " ".join(IOI_HEADS.values()).split()
    by_ablation = sorted(heads, key=lambda name: -abs(lost[name]))[:10]
    named = sum(name in circuit for name in by_ablation)
    yield Figure(
        "IOI: ablation changes the most", "6 of 10 in the paper's circuit", with_kinds(by_ablation), named >= 6
    )
    by_patching = sorted(heads, key=lambda name: -abs(restored[name]))
    yield names("IOI: patching restores the most", ["5.5", "7.9", "8.6", "8.10"], by_patching, 12)


def names(figure: str, published: Sequence[str], ranked: Sequence[str], count: int) -> Figure:
    """Whether the published names are among the first `count`."""
    text = f"{' '.join(published)} in the first {count}"
    return Figure(figure, text, with_kinds(ranked[:count]), set(published) <= set(ranked[:count]))


def with_kinds(heads: Sequence[str]) -> str:
    """Heads of the paper's circuit are marked by the first letter of their kind."""
    kinds = {head: kind[0] for kind, listed in IOI_HEADS.items() for head in listed.split()}
    return " ".join(head + (f"({kinds[head]})" if head in kinds else "") for head in heads)


def head_kinds(model: GPT) -> Iterator[Figure]:
    """Scores and labels on a repeated random sequence."""
    rows = {f"{row.layer}.{row.head}": row for row in found("attention", subject(model, "Hello world!")).rows}
    for head, score in INDUCTION_SCORES.items():
        yield number(f"induction score of {head}", score, rows[head].repeated.induction, 0.05)
    for kind in ("previous", "duplicate"):
        heads = IOI_HEADS[kind].split()
        labels = [rows[head].label for head in heads]
        shown = " ".join(f"{head} {label or '-'}" for head, label in zip(heads, labels, strict=True))
        yield Figure(f"label of {' '.join(heads)}", kind, shown, set(labels) == {kind})


def copy_suppression(model: GPT) -> Iterator[Figure]:
    """Head 10.7 keeps the model from repeating a word of the prompt."""
    of = subject(model, "All's fair in love and")

    def without(mix: torch.Tensor) -> torch.Tensor:
        return mix.index_fill(1, torch.tensor([7]), 0.0)

    with torch.no_grad():
        ablated = logits(model, trace(model, of.idx, {(10, Site.HEADS): without}).final[0, -1])
    before, after = (show(int(each.argmax())) for each in (of.last_logits, ablated))
    agrees = before != " love" and after == " love"
    yield Figure("'fair in love and', without 10.7", "' love'", f"{after!r}; with it {before!r}", agrees)


def greater_than(model: GPT) -> Iterator[Figure]:
    """The years after 1732 that begin with 17 are likelier than those before."""
    of = subject(model, "The war lasted from the year 1732 to the year 17")
    years = torch.tensor([encode(f"{year:02d}")[0] for year in range(100)])
    probabilities = of.last_logits.softmax(0)[years]
    yield number("P(year > 32) - P(year <= 32)", 0.93, float(probabilities[33:].sum() - probabilities[:33].sum()), 0.05)
    added: Counter[str] = Counter()
    for later, earlier in zip(range(33, 65), range(32, 0, -1), strict=True):
        pair = dataclasses.replace(of.question, target=int(years[later]), foil=int(years[earlier]))
        parts = found("attribution", dataclasses.replace(of, question=pair)).parts
        added.update({part.part: part.contribution for part in parts if part.part.startswith("mlp")})
    ranked = [name for name, _ in added.most_common()]
    yield names("later years: MLPs add the most", ["mlp.8", "mlp.9", "mlp.10", "mlp.11"], ranked, 4)


def first_token(model: GPT) -> Iterator[Figure]:
    """Heads attend to the first token, whose stream has very large values."""
    of = subject(model, IOI[0][2].format(" John"))
    rows = found("attention", of).rows
    share = sum(row.on_prompt.first for row in rows) / len(rows)
    yield Figure("attention to the first token", "> 0.5", f"{share:.3f}", share > 0.5)
    streams = torch.cat(of.trace.streams())[:, 0]
    largest = streams.abs().amax(0)
    channel = int(largest.argmax())
    agrees = channel == 447 and 2000 < largest[447] < 4000
    yield Figure(
        "largest value there", "about 3000 in channel 447", f"{largest[channel]:.1f} in channel {channel}", agrees
    )


if __name__ == "__main__":
    sys.exit(main())
