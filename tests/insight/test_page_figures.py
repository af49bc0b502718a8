"""Names of tokens, shades, bars and sums as the page shows them."""

import pytest

from gpt2cli.insight import page_figures as figures


def test_a_token_name_is_on_one_line_and_shows_what_is_invisible():
    assert figures.token_name(" Paris\n\t") == "·Paris↵⇥"
    assert figures.token_name("a\u202e\u00a0\u200d") == "a[U+202E][U+00A0][U+200D]"
    assert figures.token_name(r"\xf0\x9f") == r"\xf0\x9f"


def test_a_line_keeps_its_words_and_shows_what_turns_their_direction():
    assert figures.one_line("a\n  b\u202e עברית") == "a b[U+202E] עברית"


def test_a_shade_begins_where_the_legend_says():
    for beginnings in (figures.BITS, figures.PROBABILITIES, figures.DIVERGENCES):
        assert [figures.shade(value, beginnings) for value in (0, *beginnings)] == [*range(figures.SHADES)]


@pytest.mark.parametrize(("value", "shade"), [(0, "s0"), (2, "s9"), (-2, "s9 neg"), (-9, "s9 neg"), (1, "s4")])
def test_shades_of_both_signs_are_alike(value, shade):
    assert figures.signed_shade(value, 2) == shade
    assert figures.signed_shade(value, 0).startswith("s0")


def test_bars_are_in_percent_of_the_largest_and_begin_at_zero():
    longest, other = figures.bars({"a": 1.0, "b": -2.0, "c": 0.5}, most=2)
    assert longest == figures.Bar("b", -2.0, -100.0, 100.0) and other == figures.Bar("a", 1.0, 0.0, 50.0)
    assert [bar.name for bar in figures.bars({"a": 0.0, "b": -0.0}, most=None)] == ["a", "b"]


def test_parts_are_sorted_into_layers_and_kinds():
    values = {
        "embedding": 1.0,
        "0.0": 2.0,
        "0.10": 3.0,
        "0.9": 4.0,
        "attn.0.bias": 5.0,
        "mlp.1": -6.0,
        "ln_f.bias": 7.0,
    }
    found = figures.part_map(values)
    assert found.columns == ("0", "9", "10", "bias", "MLP")
    assert found.rows == ((0, (2.0, 4.0, 3.0, 5.0, None)), (1, (None, None, None, None, -6.0)))
    assert found.others == {"embedding": 1.0, "ln_f.bias": 7.0} and found.largest == 6.0
    assert sum(figures.sums(values).values()) == sum(values.values())
    assert figures.sums(values)["heads"] == 9.0


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1234.5, "1,234.50"), (-1.005, "−1.00"), (-0.001, "0.00"), (0, "0.00"), (None, "–"), (-1234, "−1,234.00")],
)
def test_numbers(value, shown):
    assert figures.number(value) == shown


def test_tables_of_small_numbers_have_more_digits():
    assert [figures.digits(value) for value in (0, 300, 1, 0.1, 0.07, 0.0021, 1e-20)] == [2, 2, 2, 2, 3, 4, 6]


@pytest.mark.parametrize(("value", "shown"), [(0.004, "0.00"), (0.3, "+0.30"), (-0.3, "−0.30"), (0, "0.00")])
def test_signed_numbers(value, shown):
    assert figures.signed(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(1, "100.0 %"), (0.0567, "5.67 %"), (0.00001, "<0.01 %"), (0, "0.00 %"), (None, "–")]
)
def test_probabilities(value, shown):
    assert figures.percent(value) == shown
