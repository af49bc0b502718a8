"""GPT-2: "Language Models are Unsupervised Multitask Learners", Radford et al. 2019.

Weights have their names on the Hub. Shapes: B sequences of T tokens, C = n_embd, V = vocab_size, H heads of size D.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2cli.config import GPTConfig
from gpt2cli.model.origin import Origin
from gpt2cli.model.token_checks import check_length, check_shape


class Causal:
    """A `sight`: what a token sees. Here, itself and the tokens before it in its row. See KVCache and PackedRow."""

    def positions(self, idx: Tensor, window: int) -> Tensor:
        """Positions (T,) or (B, T) of tokens `idx` (B, T). Called once per pass. UsageError if T > window."""
        check_length(idx.shape[1], window)
        return torch.arange(idx.shape[1], device=idx.device)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """Attention's output (B, H, T, D) in layer number `layer`, from queries, keys and values (B, H, T, D)."""
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)


CAUSAL = Causal()


class CausalSelfAttention(nn.Module):
    """Attention with H heads, each of which mixes values in a different way."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.n_head, self.dropout = layer, config.n_head, config.dropout
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)  # query, key and value in one product
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, sight: Causal) -> Tensor:
        B, T, C = x.shape
        q, k, v = (t.view(B, T, self.n_head, -1).transpose(1, 2) for t in self.c_attn(x).split(C, dim=2))
        y = sight.attend(self.layer, q, k, v, self.dropout if self.training else 0.0)  # (B, H, T, D)
        x = self.resid_dropout(self.c_proj(y.transpose(1, 2).reshape(B, T, C)))
        return x


class MLP(nn.Module):
    """Two linear layers, 4 * C units between them, with the tanh form of GELU (Hendrycks & Gimpel 2016)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(self.c_proj(F.gelu(self.c_fc(x), approximate="tanh")))
        return x


class Block(nn.Module):
    """Attention, then the MLP. Each reads a normalised copy of the residual stream and is added to the stream."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.attn = CausalSelfAttention(config, layer)
        self.ln_2 = nn.LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, sight: Causal) -> Tensor:
        x = x + self.attn(self.ln_1(x), sight)
        x = x + self.mlp(self.ln_2(x))
        return x


class GPT(nn.Module):
    """Transformer blocks between a token embedding and an output head, which usually share their weights."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config, self.origin = config, Origin()
        V, S, C = config.vocab_size, config.block_size, config.n_embd
        self.wte = nn.Embedding(V, C, _weight=torch.empty(V, C))  # otherwise it draws values, slowly on the meta device
        self.wpe = nn.Embedding(S, C, _weight=torch.empty(S, C))
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.ln_f = nn.LayerNorm(C, config.layer_norm_epsilon)
        self.lm_head = None if config.tied else nn.Linear(C, V, bias=False)
        if not self.wte.weight.is_meta:  # a meta model gets its weights from a checkpoint
            self.initialise()

    def forward(self, idx: Tensor, sight: Causal = CAUSAL) -> Tensor:
        """Logits (B, T, V) of the token after each of `idx` (B, T)."""
        return self.head(self.hidden(idx, sight))

    def hidden(self, idx: Tensor, sight: Causal = CAUSAL) -> Tensor:
        """Final hidden states (B, T, C) of token ids `idx` (B, T). UsageError for another shape, or T > block_size."""
        check_shape(tuple(idx.shape))
        x: Tensor = self.drop(self.wte(idx) + self.wpe(sight.positions(idx, self.config.block_size)))
        for block in self.h:
            x = block(x, sight)
        x = self.ln_f(x)
        return x

    def head(self, x: Tensor) -> Tensor:
        """Logits (..., V) of final hidden states (..., C)."""
        return F.linear(x, self.wte.weight if self.lm_head is None else self.lm_head.weight)

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw normal weights: standard deviation 0.02, for positions 0.01 (as in OpenAI's `model.py`). Biases are 0.

        The 2 * n_layer layers that write to the residual stream get 0.02 / sqrt(2 * n_layer) (section 2.3).
        """
        residual = 0.02 / math.sqrt(2 * self.config.n_layer)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                std = 0.01 if name == "wpe.weight" else residual if name.endswith("c_proj.weight") else 0.02
                nn.init.normal_(parameter, std=std)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
