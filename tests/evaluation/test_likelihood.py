"""Losses of packed rows against sequences alone, and of windows against transformers'."""

import math

import pytest
import torch
from torch.nn import functional as F

from gpt2cli.config import GPTConfig
from gpt2cli.data.dataset import TokenDataset
from gpt2cli.errors import CheckpointError, DivergedError
from gpt2cli.evaluation.comparison import LIKELIHOOD
from gpt2cli.evaluation.likelihood import RecordSource, Sums, TextSource, chunk_sizes, collect, portions, score
from gpt2cli.inference.torch_decoder import TorchDecoder
from gpt2cli.model.gpt import GPT
from gpt2cli.tokenizer import END_OF_TEXT_ID
from tests import models
from tests.training.records import SHAPE, alike, conversations, dataset


def plain(model: GPT, data: TokenDataset, i: int) -> list[float]:
    """A record alone: its summed loss, likeliest tokens, and tokens."""
    ids, is_target = data[i]
    logits = model(ids[None, :-1])[0, is_target[1:]]
    targets = ids[is_target]
    loss = F.cross_entropy(logits, targets, reduction="sum")
    return [float(loss), float((logits.argmax(dim=-1) == targets).sum()), len(targets)]


@torch.no_grad()
@pytest.mark.parametrize("make_data", [dataset, alike, conversations])
@pytest.mark.parametrize("max_tokens", [1, 40, 10_000])
def test_every_records_sums_are_those_of_the_record_alone(make_data, max_tokens):
    model, data = models.small_model(SHAPE), make_data(12)
    source = RecordSource(data, range(len(data)), len(data))
    parts = [score(TorchDecoder(model), source, chosen, max_tokens) for chosen in portions(source.lengths, max_tokens)]
    expected = torch.tensor([plain(model, data, i) for i in range(len(data))], dtype=torch.float64)
    torch.testing.assert_close(collect(parts, len(data)), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("lengths", [[1], [3, 3, 3], [100, 1, 1, 100], [2] * 50])
def test_portions_hold_every_sequence_once(lengths):
    found = [i for chosen in portions(lengths, 5) for i in chosen]
    assert found == list(range(len(lengths)))


@pytest.mark.parametrize("stride", [1, 10, 17, 31])
def test_windows_predict_every_token_once_with_as_much_before_it_as_the_stride_allows(stride):
    texts = [torch.arange(1, n + 1).to(torch.uint16) for n in (1, 30, 31, 32, 33, 100)]
    source = TextSource(texts, 32, stride)
    data, units = source.part(range(len(source.lengths)))
    seen: list[int] = []
    before = []
    for i in range(len(data)):
        ids, first = data[i][0], int(data.first_targets[i])
        seen += ids[first:].tolist()
        before += [min(first, 32 - stride) >= min(int(ids[first]), 32 - stride)]
        assert int(data.target_counts[i]) == len(ids) - first
    assert seen == [token for text in texts for token in text.tolist()] and all(before)
    assert [len(unit) for unit in units] == data.target_counts.tolist()
    assert len(torch.cat(units).unique()) == source.units == len(texts)


@torch.no_grad()
@pytest.mark.parametrize("stride", [7, 24, 47])
def test_perplexity_of_a_text_is_transformers_with_the_same_stride_and_tokens(stride, tmp_path):
    from transformers import GPT2LMHeadModel

    model = models.small_model(GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=48, vocab_size=50257))
    theirs = GPT2LMHeadModel.from_pretrained(models.save_hub_directory(model, tmp_path / "hub")).eval()
    text = torch.randint(50257, (700,), generator=torch.Generator().manual_seed(1))
    stream = torch.cat([torch.tensor([END_OF_TEXT_ID]), text])[None]
    losses, counted, end_before = [], 0, 0
    for begin in range(0, stream.shape[1], stride):  # the recipe of their documentation
        end = min(begin + 48, stream.shape[1])
        idx = stream[:, begin:end]
        labels = idx.clone()
        labels[:, : -(end - end_before)] = -100
        n = int((labels[:, 1:] != -100).sum())
        losses.append(float(theirs(idx, labels=labels).loss) * n)
        counted, end_before = counted + n, end
        if end == stream.shape[1]:
            break
    source = TextSource([text.to(torch.uint16)], 48, stride)
    table = collect(
        [score(TorchDecoder(model), source, chosen, 1024) for chosen in portions(source.lengths, 1024)], source.units
    )
    sums = table.sum(dim=0).tolist()
    assert sums[2] == counted == 700
    assert LIKELIHOOD["perplexity"](sums) == pytest.approx(math.exp(sum(losses) / counted), rel=1e-4)


def test_losses_that_are_not_finite_are_an_error():
    model, data = models.small_model(SHAPE), dataset(3)
    with torch.no_grad():
        model.ln_f.weight.fill_(float("inf"))
    with pytest.raises(DivergedError, match="not finite"):
        score(TorchDecoder(model), RecordSource(data, range(3), 3), range(3), 100)


def test_a_token_that_the_model_does_not_know_is_said():
    model = models.small_model(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=16, vocab_size=65))
    source = TextSource([torch.tensor([1, 2]).to(torch.uint16)], 16, 8)
    with pytest.raises(CheckpointError, match=r"token 50256 is not among the 65 .* made for another tokenizer"):
        score(TorchDecoder(model), source, range(1), 100)


def test_sums_that_were_kept_are_taken_only_if_they_can_be_those_of_these_sequences():
    model, data = models.small_model(SHAPE), dataset(4)
    source = RecordSource(data, range(len(data)), len(data))
    done = score(TorchDecoder(model), source, range(4), 1000)
    kept = [done.units, done.losses, done.right, done.tokens]
    assert Sums.restored(kept, source, range(4)) == done
    assert Sums.restored(kept, source, range(3)) is None
    nan, more = [math.nan, *done.losses[1:]], [done.tokens[0] + 1, *done.right[1:]]
    for odd in (
        *(None, 7, [], [1, 2, 3, 4], kept[:3]),
        [done.units, nan, done.right, done.tokens],
        [done.units, ["1.0", *done.losses[1:]], done.right, done.tokens],
        [done.units, done.losses[1:], done.right, done.tokens],
        [done.units, done.losses, more, done.tokens],
        [[10**9, *done.units[1:]], done.losses, done.right, done.tokens],
    ):
        assert Sums.restored(odd, source, range(4)) is None, odd


def test_bytes_and_words_add_up_in_the_chunks_of_the_source():
    lengths = (1, 255, 256, 257, 600)
    sizes = [torch.ones(n, 2, dtype=torch.uint8) for n in lengths]
    source = TextSource([torch.zeros(n).to(torch.uint16) for n in lengths], 32, 16)
    _, units = source.part(range(len(source.lengths)))
    per_unit = torch.bincount(torch.cat(units), minlength=source.units)
    assert chunk_sizes(sizes)[:, 0].tolist() == per_unit.tolist()


def test_a_perplexity_beyond_all_numbers_is_no_error():
    assert LIKELIHOOD["perplexity"]([800.0, 0.0, 1.0]) == math.inf
