"""Text out of tokens: stop texts, truncation, ids and text that belong together."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2cli import SamplingConfig, TextGeneration, decode, encode, generate, stream
from gpt2cli.generation.text import Sample, complete
from gpt2cli.tokenizer import END_OF_TEXT_ID, vocabulary
from tests import models


@pytest.fixture(scope="module")
def model():
    return models.small_model()


def feed(text, stop):
    """Push a text's tokens until a stop text ends it; the sample, and what it showed piece by piece."""
    sample, shown = Sample(0, stop), ""
    for token in encode(text, allow_special=False):
        shown += sample.push(token)
        if sample.finish_reason:
            break
    return sample, shown + sample.finish()


@settings(deadline=None)
@given(st.text("ab c🌍é", max_size=30), st.lists(st.text("ab c🌍", min_size=1, max_size=4), max_size=3))
def test_a_settled_token_stays_and_its_characters_are_shown(text, stop):
    sample, before = Sample(0, tuple(stop)), []
    for token in encode(text, allow_special=False):
        sample.push(token)
        settled = sample.tokens[: sample.settled]
        assert settled[: len(before)] == before
        assert sample.text.startswith(decode(settled))
        if sample.settled < len(sample.tokens):
            assert not sample.text.startswith(decode(sample.tokens[: sample.settled + 1]))
        before = settled
        if sample.finish_reason:
            break
    sample.finish()
    assert sample.tokens[: len(before)] == before
    assert sample.settled == len(sample.tokens)


@settings(deadline=None)
@given(st.text("ab c🌍é", max_size=30), st.lists(st.text("ab c🌍", min_size=1, max_size=4), max_size=3))
def test_stop_texts_cut_where_the_first_of_them_is_complete(text, stop):
    sample, shown = feed(text, tuple(stop))
    assert shown == sample.text
    assert text.startswith(shown)
    assert not any(word in shown for word in stop)
    if sample.finish_reason == "stop":
        assert any(text[len(shown) :].startswith(word) for word in stop)
    else:
        assert (sample.finish_reason, shown) == ("length", text)


@settings(deadline=None)
@given(st.text("ab c🌍é", max_size=30), st.text("ab c🌍", min_size=1, max_size=4))
def test_tokens_belong_to_the_text(text, stop):
    sample, _ = feed(text, (stop,))
    if sample.finish_reason == "stop":
        assert sample.text.startswith(decode(sample.tokens))
    else:
        assert decode(sample.tokens) == sample.text


def test_a_token_that_reaches_into_a_stop_text_is_left_out_and_its_beginning_is_text():
    sample = Sample(0, ("a",))
    for token in encode(", when he was"):
        sample.push(token)
        if sample.finish_reason:
            break
    sample.finish()
    assert (sample.text, decode(sample.tokens)) == (", when he w", ", when he")


# "a", "é" and "🌍" as they come byte by byte, whole tokens, and bytes that are no UTF-8 wherever they stand
BYTES = [vocabulary()[spelling] for spelling in ("a", "b", "Ã", "©", "ð", "Ł", "Į", "į", "ÿ", "Ġthe", "é")]


@settings(deadline=None)
@given(st.lists(st.sampled_from(BYTES), max_size=12), st.text("aét �", min_size=1, max_size=3))
def test_tokens_belong_to_the_text_also_if_it_holds_stray_bytes(tokens, stop):
    sample = Sample(0, (stop,))
    for token in tokens:
        sample.push(token)
        if sample.finish_reason:
            break
    sample.finish()
    whole = decode(tokens)
    if sample.finish_reason == "length":
        assert (sample.tokens, sample.text) == (tokens, whole)
        return
    kept = len(sample.tokens)
    assert sample.text == whole[: whole.index(stop)]
    assert sample.tokens == tokens[:kept]
    assert sample.text.startswith(decode(sample.tokens))
    # one more would reach into the stop text, or end in mid-character
    one_more = decode(tokens[: kept + 1])
    assert len(one_more) > len(sample.text) or one_more.endswith("\ufffd")


def test_what_may_begin_a_stop_text_is_held_back():
    sample = Sample(0, ("END.",))
    assert [sample.push(token) for token in encode(" the EN")] == [" the", " "]
    assert sample.push(encode("EMY")[0]).startswith("EN")


def test_end_of_text_shows_what_was_held_back():
    sample = Sample(0, ("END.",))
    shown = "".join(sample.push(token) for token in [*encode("the EN"), END_OF_TEXT_ID]) + sample.finish()
    assert (shown, sample.finish_reason, decode(sample.tokens)) == ("the EN", "eos", "the EN")


def test_streamed_pieces_make_the_text(model):
    sampling = SamplingConfig(max_new_tokens=60, temperature=1.5, top_k=0, seed=1)
    pieces = list(stream(model, "One day", sampling))
    assert "".join(pieces) == generate(model, "One day", sampling)
    assert len(pieces) > 10


def test_samples_of_one_batch_equal_single_runs_with_their_seeds(model):
    sampling = SamplingConfig(max_new_tokens=20, temperature=1.5, seed=5, num_samples=3)
    run = TextGeneration.from_text(model, "One day", sampling)
    list(run)
    assert [sample.seed for sample in run.samples] == [5, 6, 7]
    for sample in run.samples:
        alone = SamplingConfig(max_new_tokens=20, temperature=1.5, seed=sample.seed)
        assert sample.text == generate(model, "One day", alone)
        assert decode(sample.tokens) == sample.text
    assert len({sample.text for sample in run.samples}) == 3


def test_a_stop_text_ends_one_sample_and_not_the_others(model):
    sampling = SamplingConfig(max_new_tokens=30, temperature=1.5, seed=5, num_samples=3)
    free = TextGeneration.from_text(model, "One day", sampling)
    list(free)
    word = free.samples[1].text[10:14]
    stopped = TextGeneration.from_text(model, "One day", SamplingConfig(30, 1.5, seed=5, num_samples=3, stop=(word,)))
    list(stopped)
    assert stopped.samples[1].finish_reason == "stop"
    assert free.samples[1].text.startswith(stopped.samples[1].text)
    for before, after in zip(free.samples, stopped.samples, strict=True):
        if word not in before.text:
            assert before.text == after.text


def test_a_seed_of_zero_is_a_seed_and_no_seed_is_random(model):
    run = lambda seed: generate(model, "One", SamplingConfig(12, 1.5, top_k=0, seed=seed))  # noqa: E731
    assert run(0) == run(0)
    assert run(None) != run(None)


def test_a_long_prompt_keeps_its_end(model):
    ids = encode("word " * 50)
    run = TextGeneration.from_text(model, "word " * 50, SamplingConfig())
    assert (run.dropped, run.prompt_ids) == (len(ids) - 37, ids[-37:])


def test_an_empty_prompt_starts_from_end_of_text(model):
    assert TextGeneration.from_text(model, "", SamplingConfig()).prompt_ids == [END_OF_TEXT_ID]
    assert TextGeneration(model, [], SamplingConfig()).prompt_ids == [END_OF_TEXT_ID]


def test_end_of_text_is_special_in_a_text_and_token_ids_are_read_as_they_are(model):
    prompt, once = "a<|endoftext|>b", SamplingConfig(max_new_tokens=5, temperature=0)
    plain = encode(prompt, allow_special=False)
    assert TextGeneration.from_text(model, prompt, once).prompt_ids == [64, END_OF_TEXT_ID, 65]
    assert TextGeneration(model, plain, once).prompt_ids == plain
    [sample] = complete(model, [plain], once)
    apart = TextGeneration(model, plain, once)
    assert sample.text == "".join(text for _, text in apart)
