"""A small BERT with random weights, for BERTScore."""

from pathlib import Path

import torch


def save_bert(directory: Path) -> Path:
    from transformers import BertConfig, BertModel, BertTokenizerFast

    signs = [chr(code) for code in range(33, 127)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *signs, *("##" + sign for sign in signs)]
    (directory / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = BertTokenizerFast(str(directory / "vocab.txt"))
    tokenizer.model_max_length = 128
    tokenizer.save_pretrained(directory)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(vocabulary), **shape)).save_pretrained(directory)
    return directory
