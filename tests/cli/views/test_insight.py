"""The summary of `gpt2 explain`, with findings made by hand."""

import io
import math
from typing import Any

import pytest

from gpt2cli.cli.environment import Environment, use
from gpt2cli.cli.views.insight import show_explanation
from gpt2cli.cli.views.insight_tables import LEAST_ROWS, STRONGEST, Tables
from gpt2cli.cli.views.surprisal import MOST_LINES, bits, prompt_lines, style_of
from gpt2cli.insight.explanation import Explanation
from gpt2cli.insight.findings import (
    Ablation,
    Attribution,
    Change,
    Choice,
    Compared,
    Contribution,
    Difference,
    Finding,
    HeadRow,
    Heads,
    HeadScores,
    Lens,
    LensPlace,
    LensRow,
    Next,
    Patching,
    Saliency,
    SaliencyRow,
    Token,
    TokenRow,
    Tokens,
)
from tests.runner import Pipe

OWL, CAT = Choice(" owl", 1, 0.5), Choice(" cat", 2, 0.25)
TARGET = Token(" owl", 1)
SCORES = HeadScores(None, None, 0.9, 0.1, 0.5)


def row(text: str, surprisal: float | None) -> TokenRow:
    logprob = None if surprisal is None else -surprisal * math.log(2)
    return TokenRow(text, 7, b"", logprob, None if logprob is None else 1, 1.0, (OWL,))


def lens(layers: int) -> Lens:
    names = [(None, "embedding"), *((layer, after) for layer in range(layers) for after in ("attn", "mlp"))]
    place = LensPlace(" owl", 1, 0.5, 0.5, 0.0)
    return Lens(TARGET, tuple(LensRow(layer, after, (OWL, CAT), -1.0, 0.1, (place,)) for layer, after in names))


FINDINGS: list[Finding] = [
    Tokens((row("The", None), row(" small", 3.25), row(" owl", 12.6))),
    Next((OWL, CAT), (OWL,), {"temperature": 0.5, "top_k": 1, "top_p": 1.0, "min_p": 0.0}),
    lens(12),
    Heads((HeadRow(0, 0, "induction", SCORES, SCORES, None), HeadRow(0, 1, "", SCORES, SCORES, None))),
    Attribution(
        TARGET, None, 6.5, tuple(map(Contribution, ("embedding", "0.0", "0.1", "mlp.0"), (9.0, -3.0, 0.0, 0.5)))
    ),
    Saliency(TARGET, None, (SaliencyRow("The", 5, 0.1, -2.5), SaliencyRow(" small", 6, 0.1, 0.5)), -2.0, 0.0, 32),
    Ablation(TARGET, (Change("0.0", 0.25), Change("0.1", -0.5), Change("mlp.0", 0.0))),
]
WORDS = {"tokens": "surprisal", "next": "sampled", "lens": "layer ", "attribution": "adds  ", "ablation": "without  "}
WORDS |= {"attention": "attends", "saliency": "moves it  "}


def shown(
    findings: list[Finding],
    encoding: str = "utf-8",
    terminal: bool = False,
    width: int = 80,
    height: int = 25,
    **asked: Any,
) -> str:
    out = Pipe(encoding=encoding, terminal=terminal)
    variables = {"NO_COLOR": "1"}
    with pytest.MonkeyPatch.context() as patch, use(Environment(io.StringIO(), out, out, variables)):
        patch.setenv("COLUMNS", str(width))
        patch.setenv("LINES", str(height))
        patch.setenv("TERM", "xterm-256color")
        about = {"target": TARGET} | asked
        show_explanation(Explanation("small", "The small owl", (5, 6, 1), findings=findings, **about))
    return out.written()


def test_numbers_stand_below_their_tokens() -> None:
    tokens, numbers = prompt_lines([row("The", None), row(" small", 3.25), row("est", 12.6), row("\n", 0.5)], 80)
    assert tokens.plain.rstrip() == r"The smallest\n"
    assert numbers.plain.rstrip() == "-   3.2  13 0.5"
    assert tokens.plain.index("small") == numbers.plain.index("3.2") and tokens.plain.index(
        "est"
    ) == numbers.plain.index("13")
    assert [style_of(bits(each)) for each in (row("a", None), row("a", 1), row("a", 30))] == [
        "dim",
        "green",
        "bold red",
    ]


@pytest.mark.parametrize("width", [10, 24, 80])
def test_a_long_prompt_shows_its_end(width: int) -> None:
    lines = prompt_lines([row(f" w{number}", number % 14) for number in range(400)], width)
    assert len(lines) == 2 * MOST_LINES + 1 and "lines of tokens before" in lines[0].plain
    assert "w399" in lines[-2].plain and all(len(line.plain) <= width for line in lines[1:])
    assert len(prompt_lines([row("x" * 200, 1.0)], width)[0].plain) <= width


def test_tokens_are_in_quotes_on_one_line_and_short_on_a_screen() -> None:
    screen, pipe = (Tables(screen=screen, blocks=True, longest_token=14) for screen in (True, False))
    assert screen.token(" owl") == '" owl"' and screen.token("\n\x1b") == r'"\n\x1b"'
    assert screen.token('?"') == r'"?\""'
    assert screen.token(" electroencephalogram") == '" electroe..."' and len(pipe.token(" " * 40)) == 42


@pytest.mark.parametrize("part", WORDS)
def test_each_part_alone(part: str) -> None:
    [finding] = [finding for finding in FINDINGS if finding.part == part]
    text = shown([finding])
    explained = {name for name, word in WORDS.items() if f"\n{word}" in text[text.rindex("\n\n") + 1 :]}
    assert explained == {part} and text.startswith('small · 3 tokens\nexplained: " owl"')


def test_the_parts_that_change_most_come_first_and_only_heads_and_mlps() -> None:
    lines = [line.split() for line in shown(FINDINGS).splitlines()]
    at = lines.index(["head", "or", "MLP", "adds", "without", "attends", "to"])
    assert lines[at + 1 : at + 4] == [
        ["0.1", "+0.00", "-0.50"],
        ["0.0", "-3.00", "+0.25", "induction"],
        ["mlp.0", "+0.50", "+0.00"],
    ]


def test_heads_without_labels_and_numbers_that_round_to_zero() -> None:
    unlabelled = Heads((HeadRow(0, 1, "", SCORES, SCORES, None),))
    lines = shown([unlabelled]).splitlines()
    assert [" ".join(line.split()) for line in lines[3:]] == ["heads that attend to", "none no score reaches 0.4"]
    ablation = Ablation(TARGET, (Change("mlp.0", -0.004),))
    assert "mlp.0          +0.00" in shown([ablation]).splitlines()


def test_a_screen_has_some_layers_and_a_pipe_all() -> None:
    screen, pipe = (Tables(screen=screen, blocks=True, longest_token=14).lens(lens(48)) for screen in (True, False))
    assert (screen.row_count, pipe.row_count) == (LEAST_ROWS, 49)
    names = [str(name) for name in screen.columns[0].cells]
    assert names[0] == "embedding" and names[-1] == "47"


def test_the_widest_tables_fit_side_by_side_into_80_columns() -> None:
    long = Choice(" electroencephalogram", 1, 1.0)
    place = LensPlace(long.text, 1, 1.0, 1.0, 0.0)
    found = Lens(Token(long.text, 1), (LensRow(None, "embedding", (long,), 0.0, 0.0, (place,)),))
    settings = {"temperature": 0.5, "top_k": 1, "top_p": 1.0, "min_p": 0.0}
    text = shown([Next((long,), (long,), settings), found], terminal=True)
    assert any("next token" in line and "layer" in line and len(line) <= 80 for line in text.splitlines())


@pytest.mark.parametrize("width", [30, 60, 80, 120])
def test_no_line_is_longer_than_the_terminal(width: int) -> None:
    text = shown(FINDINGS, terminal=True, width=width)
    assert max(map(len, text.splitlines())) <= width and "\x1b" not in text
    side_by_side = any("next token" in line and " layer " in line for line in text.splitlines())
    assert side_by_side == (width >= 80)
    assert len(text.splitlines()) <= 30 or width < 80


def test_ascii_terminals_get_other_bars_and_excluded_tokens_a_dash() -> None:
    lines = shown(FINDINGS, encoding="ascii").splitlines()
    [cat] = [line for line in lines if line.startswith('" cat"')]
    assert cat.split() == ['"', 'cat"', "25.0%", "###", "-"]
    assert any("with --temp 0.5 --top-k 1" in line and "--top-p" not in line for line in lines)


def headline(text: str) -> str:
    return text.splitlines()[1]


def test_the_headline_names_what_is_explained_and_the_first_choice() -> None:
    ape, bee = Token(" ape", 3), Token(" bee", 4)
    following = Next(
        (OWL, CAT, Choice(" ape", 3, 0.125)), (OWL,), {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    )
    assert headline(shown([following])) == 'explained: " owl" (50.0%, the model\'s 1st choice)'
    said = 'explained: " ape" (12.5%); the model\'s 1st choice is " owl" (50.0%)'
    assert headline(shown([following], target=ape)) == said
    said = 'explained: " ape" (12.5%) rather than " owl" (50.0%, the model\'s 1st choice): -1.39 logits'
    assert headline(shown([following], target=ape, foil=TARGET)) == said
    assert headline(shown([following], foil=bee)).endswith('rather than " bee"')
    assert headline(shown([])) == 'explained: " owl"'


def test_many_ablated_parts_are_counted() -> None:
    few, many = ("0.1", "mlp.3"), tuple(f"0.{head}" for head in range(12))
    assert shown([], ablated=few).splitlines()[0] == "small · 3 tokens · without 0.1, mlp.3"
    assert shown([], ablated=many).splitlines()[0] == "small · 3 tokens · without 0.0, 0.1, 0.2, 0.3 and 8 more"


def test_target_and_foil_have_a_row_on_any_screen() -> None:
    top = tuple(Choice(f" w{number}", number, 0.1) for number in range(12))
    tables = Tables(screen=True, blocks=True, longest_token=14)
    names = [str(name) for name in tables.next(Next(top, top, {}), {2, 8, 11}).columns[0].cells]
    assert names == [*(f'" w{number}"' for number in range(LEAST_ROWS)), '" w8"', '" w11"']


def patching(layers: int, moves_at: int) -> Patching:
    """The difference moves from place 1 to place 3 at a layer, in which head 1 carries it."""
    stream = tuple((1.0, 0.0, 0.0) if layer < moves_at else (0.0, 0.0, 0.9) for layer in range(layers))
    heads = tuple((0.01 * layer, -0.7 if layer == moves_at else 0.0) for layer in range(layers))
    return Patching("A small owl", TARGET, None, 10.79, 11.68, stream, stream, stream, heads)


@pytest.mark.parametrize("moves_at", range(1, 12))
def test_patching_shows_where_the_difference_moves_and_the_strongest_heads(moves_at: int) -> None:
    tables = Tables(screen=True, blocks=True, longest_token=14)
    streams, heads = tables.patching(patching(12, moves_at), (464, 1402, 39610))
    layers = [str(cell) for cell in streams.columns[0].cells]
    assert {"0", str(moves_at - 1), str(moves_at), "11"} <= set(layers) and len(layers) <= LEAST_ROWS
    assert layers.count("…") >= 1
    places = dict(zip(layers, (str(cell) for cell in streams.columns[1].cells), strict=True))
    assert places["0"].startswith("1: ") and places["11"].startswith("3: ")
    assert heads.row_count == STRONGEST and str(next(iter(heads.columns[0].cells))) == f"{moves_at}.1"


def test_patching_tells_both_results_and_units() -> None:
    text = shown([patching(12, 5)])
    assert "patching, logits of the target: 11.68 with --against, 10.79 here" in text
    assert "1 is a value that alone makes it 10.79 in the other prompt's pass" in text
    assert "patching, logits of target minus foil" in shown([patching(12, 5)], foil=Token(" cat", 2))


def test_the_legend_names_parts_units_and_both_models() -> None:
    text = shown([*FINDINGS, Compared("tuned.pt", TARGET)])
    assert "before     small; after: tuned.pt" in text
    assert "adds       attribution, logits of the target" in text
    assert "without    ablation, nats of the target's log-probability" in text
    assert "moves it   saliency, logits of the target" in text and "\ngradient   saliency" in text
    with_foil = shown(FINDINGS, foil=Token(" cat", 2))
    assert with_foil.count("logits of target minus foil") == 3 and "nats" not in with_foil


def test_a_high_terminal_shows_more_rows() -> None:
    low, high = (shown(FINDINGS, terminal=True, width=80, height=height) for height in (24, 60))
    assert "…" in low and "…" not in high and len(high.splitlines()) < 60
    assert sum(line.endswith("50.0%") for line in high.splitlines()) >= 13


@pytest.mark.parametrize("width", [36, 40, 60])
def test_narrow_terminals_keep_all_numbers(width: int) -> None:
    long = " electroencephalogram"
    saliency = Saliency(TARGET, None, (SaliencyRow(long, 5, 0.12, -12.53),), -2.0, 0.0, 32)
    kinds = Heads((HeadRow(0, 1, "previous", SCORES, SCORES, None),))
    parts = [Attribution(TARGET, None, 6.5, (Contribution("0.1", -13.25),)), Ablation(TARGET, (Change("0.1", 10.75),))]
    compared = Compared("b", TARGET, next=(Difference(long, 0.123, 0.456),))
    text = shown([kinds, *parts, saliency, patching(12, 5), compared], terminal=True, width=width)
    for number in ("-13.25", "+10.75", "-12.53", "+0.12", "1.00", "0.90", "-0.70", "12.3%", "45.6%"):
        assert number in text
    assert max(map(len, text.splitlines())) <= width


def test_places_tell_equal_tokens_apart() -> None:
    twice = (SaliencyRow(" a", 5, 0.1, 0.5), SaliencyRow(" a", 5, 0.1, 2.5))
    lines = shown([Saliency(TARGET, None, twice, 3.0, 0.0, 32)], terminal=True).splitlines()
    assert [line[:6] for line in lines if '" a"' in line] == ['2: " a', '1: " a']
