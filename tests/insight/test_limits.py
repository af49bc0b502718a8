"""Which parts are found, by their names and by the length of the prompt."""

import pytest

from gpt2cli.errors import UsageError
from gpt2cli.insight.limits import LIMITS, PARTS, check_parts, choose_parts
from gpt2cli.insight.question import Question


def question(length: int, against: bool = False) -> Question:
    prompt = (7,) * length
    return Question(prompt, against=prompt if against else None)


def test_all_parts_of_a_short_prompt_and_patching_with_a_second_one() -> None:
    assert choose_parts(None, question(8)) == ([part for part in PARTS if part != "patching"], None)
    assert choose_parts(None, question(8, against=True)) == ([*PARTS], None)


@pytest.mark.parametrize("part", LIMITS)
def test_above_its_limit_a_slow_part_is_left_out_unless_asked_for(part: str) -> None:
    assert part in choose_parts(None, question(LIMITS[part], against=True))[0]
    chosen, note = choose_parts(None, question(LIMITS[part] + 1, against=True))
    assert part not in chosen and note is not None and part in note.text and "--parts" in note.text
    assert choose_parts([part], question(1000, against=part == "patching")) == ([part], None)


def test_parts_come_in_their_order_and_once() -> None:
    assert choose_parts(["lens", "tokens", "lens"], question(8))[0] == ["tokens", "lens"]


@pytest.mark.parametrize(
    ("parts", "against", "says"),
    [
        (["lense"], False, r"--parts has no 'lense': did you mean lens\?"),
        (["logit-lens"], False, r"did you mean lens\?"),
        ([""], False, "--parts has no '': choose from tokens, next, lens"),
        (["lens", "patching"], False, "patching needs --against TEXT"),
        (["lens"], True, "add patching to --parts"),
    ],
)
def test_parts_that_cannot_be_found(parts: list[str], against: bool, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        check_parts(parts, against)
