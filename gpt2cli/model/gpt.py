"""GPT-2, from the top down: the model, a block, its two halves, and the cache of keys and values.

"Language Models are Unsupervised Multitask Learners", Radford et al. 2019. Every attribute bears the name that its
weights have on the Hugging Face Hub. Shapes: B sequences in a batch, T tokens in each, C = n_embd, V = vocab_size,
H heads of size D = C / H, S tokens that attention can see.
"""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from gpt2cli.config import GPTConfig
from gpt2cli.errors import UsageError

if TYPE_CHECKING:
    from gpt2cli.inference.gpu.cuda_graphs import Graphs

FLASH_SIZE = 192
"""The largest head that FlashAttention has a backward pass for on every GPU that it runs on."""


class GPT(nn.Module):
    """A stack of transformer blocks between a token embedding and an output head, which share their weights."""

    other_tokenizer: str | None = None  # the reason, if it was made for another tokenizer than GPT-2's

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = embedding(config.vocab_size, config.n_embd)
        self.wpe = embedding(config.block_size, config.n_embd)
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.precision = "fp32"  # what the weights are held in, or were stored in
        self.key_size = config.head_size  # what a key takes in the cache
        self.graphs: Graphs | None = None  # set by `cuda_graphs.compile_steps`: decodes in place of `forward`
        self.checkpointing = False  # recompute blocks in the backward pass rather than keep what is inside them
        self.lm_head = None if config.tied else nn.Linear(config.n_embd, config.vocab_size, bias=False)
        if not self.wte.weight.is_meta:  # otherwise a checkpoint is about to bring the weights
            self.initialise()

    def forward(self, idx: Tensor, cache: "KVCache | None" = None) -> Tensor:
        """Logits (B, T, V) of the token after each of `idx` (B, T)."""
        return self.head(self.hidden(idx, cache))

    def hidden(
        self,
        idx: Tensor,
        cache: "KVCache | None" = None,
        packing: "PackedRow | None" = None,
        wanted: Tensor | None = None,
        lookup: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """The final hidden states (B, T, C) of token ids `idx` (B, T).

        With a `cache`, the tokens stand behind those that it holds, and it takes them up. With a `packing`, the one
        row holds several sequences. With `wanted`, (N,), only the states at these positions are worked out, (B, N, C).
        A `lookup` takes the rows of tokens out of the embedding in a way of its own. Raises UsageError if a sequence is
        longer than `block_size`.
        """
        longest = packing.longest if packing else idx.shape[1] + (max(cache.lengths) if cache else 0)
        if longest > self.config.block_size:
            raise UsageError(f"{longest} tokens do not fit into the model's window of {self.config.block_size}")
        mask = None
        if packing is not None:
            positions = packing.positions
        elif cache is not None:
            positions, mask = cache.positions_and_mask(idx.shape[1])
        else:
            positions = torch.arange(idx.shape[1], device=idx.device)
        final = self.states(idx, positions, mask, cache, packing, wanted, lookup)
        if cache is not None:
            cache.lengths = [length + idx.shape[1] for length in cache.lengths]
        return final

    def states(
        self,
        idx: Tensor,
        positions: Tensor,
        mask: Tensor | None,
        cache: "KVCache | None",
        packing: "PackedRow | None",
        wanted: Tensor | None,
        lookup: Callable[[Tensor, Tensor], Tensor] | None,
    ) -> Tensor:
        """`hidden` for tokens whose positions, and what they may see, are known."""
        tokens = self.wte(idx) if lookup is None else lookup(idx, self.wte.weight)
        x = self.drop((tokens + self.wpe(positions)).to(self.ln_f.weight.dtype))
        for layer, block in enumerate(self.h):
            past = None if cache is None else (cache, layer)
            kept = wanted if layer == len(self.h) - 1 else None
            if self.checkpointing and self.training:
                x = checkpoint(block, x, mask, past, packing, kept, use_reentrant=False)
            else:
                x = block(x, mask, past, packing, kept)
        final: Tensor = self.ln_f(x)
        return final

    def head(self, x: Tensor) -> Tensor:
        """Logits (..., V) of final hidden states (..., C)."""
        logits: Tensor = F.linear(x, self.wte.weight) if self.lm_head is None else self.lm_head(x)
        return logits

    def compiling_note(self) -> str | None:
        """What to tell a person before `warm_up`, if it takes a while."""
        return None

    def warm_up(self) -> None:
        """Do beforehand what the first step would wait for: here, nothing."""

    @torch.no_grad()
    def initialise(self) -> None:
        """GPT-2's initial weights: normal with 0.02, positions with 0.01 (as in OpenAI's `model.py`), no biases.

        The layers that write into the residual stream are scaled by 1/sqrt(2 * n_layer), the number of such layers
        (section 2.3 of the paper), so that the stream's variance does not grow with depth.
        """
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 2:
                std = 0.01 if name == "wpe.weight" else 0.02
                if name.endswith("c_proj.weight"):
                    std /= math.sqrt(2 * self.config.n_layer)
                nn.init.normal_(parameter, std=std)


def embedding(rows: int, width: int) -> nn.Embedding:
    """A table without values: nn.Embedding would draw random ones, which takes a second on the meta device."""
    table: nn.Embedding = nn.Embedding.from_pretrained(torch.empty(rows, width), freeze=False)  # type: ignore[no-untyped-call]
    return table


LayerCache = tuple["KVCache", int]
"""The cache, and which layer's part of it."""


class Block(nn.Module):
    """Attention, then the MLP, each on a normalised copy of the residual stream and added back to it."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.mlp = MLP(config)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        past: LayerCache | None,
        packing: "PackedRow | None",
        kept: Tensor | None = None,
    ) -> Tensor:
        x = x + self.attn(self.ln_1(x), mask, past, packing)
        if kept is not None:  # nobody looks at the other tokens after this
            x = x[:, kept]
        x = x + self.mlp(self.ln_2(x))
        return x


class CausalSelfAttention(nn.Module):
    """Every token looks at itself and those before it, in H ways at once."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)  # query, key and value in one product
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None, past: LayerCache | None, packing: "PackedRow | None") -> Tensor:
        B, T, C = x.shape
        heads = (t.view(B, T, self.n_head, -1).transpose(1, 2) for t in self.c_attn(x).split(C, dim=2))
        q, k, v = heads  # (B, H, T, D) each
        if past is not None:
            cache, layer = past
            k, v = cache.append(layer, k, v)  # (B, H, S, D)
        y = self.attend(q, k, v, mask) if packing is None else self.attend_apart(q, k, v, packing)
        y = self.c_proj(y.transpose(1, 2).reshape(B, T, C))
        out: Tensor = self.resid_dropout(y)
        return out

    def attend_apart(self, q: Tensor, k: Tensor, v: Tensor, packing: "PackedRow") -> Tensor:
        """`attend` for each piece of a packed row, (1, H, T, D): to itself, and to the beginning it goes on from."""
        size_fits = q.shape[3] % 8 == 0 and q.shape[3] <= FLASH_SIZE
        if packing.bounds is not None and q.dtype in (torch.bfloat16, torch.float16) and size_fits:
            return self.attend_by_bounds(q, k, v, packing.bounds, packing.reach)
        if packing.uniform:  # one call for all
            B, D = len(packing.lengths), q.shape[3]
            q_, k_, v_ = (t.view(self.n_head, B, -1, D).transpose(0, 1) for t in (q, k, v))
            return self.attend(q_, k_, v_, None).transpose(0, 1).reshape(q.shape)
        qs, ks, vs = (torch.split(t, packing.lengths, dim=2) for t in (q, k, v))
        parts = []
        for i, (beginning, mask) in enumerate(zip(packing.beginnings, packing.masks, strict=True)):
            seen_k, seen_v = ks[i], vs[i]
            if beginning is not None:
                seen_k = torch.cat([ks[beginning], seen_k], dim=2)
                seen_v = torch.cat([vs[beginning], seen_v], dim=2)
            parts.append(self.attend(qs[i], seen_k, seen_v, mask))
        return torch.cat(parts, dim=2)

    def attend_by_bounds(self, q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, reach: int) -> Tensor:
        """`attend` for each piece of a packed row, (1, H, T, D), in one kernel: `bounds` (n + 1,) says where they end.

        FlashAttention-2 (Dao 2023) for sequences of different lengths, none longer than `reach`. PyTorch's public
        function for it, `torch.nn.attention.varlen.varlen_attn`, has no dropout.
        """
        rows = (t[0].transpose(0, 1) for t in (q, k, v))  # (T, H, D) each
        dropout = self.dropout if self.training else 0.0
        y = torch.ops.aten._flash_attention_forward(*rows, bounds, bounds, reach, reach, dropout, True, False)[0]
        out: Tensor = y.transpose(0, 1)[None]
        return out

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Mix values (B, H, S, D) for queries (B, H, T, D); without a mask, each sees those before it."""
        return F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=mask is None and q.shape[2] > 1,  # a single token may see everything there is
        )


class MLP(nn.Module):
    """Four times as wide inside, with GPT-2's tanh form of GELU (Hendrycks & Gimpel 2016)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.c_fc(x), approximate="tanh")
        x = self.dropout(self.c_proj(x))
        return x


class PackedRow:
    """How one row, (1, T), holds several sequences without padding, each of which sees only its own tokens.

    The row is made of pieces, end to end, `lengths[i]` tokens each. A piece is a sequence, or a beginning that several
    sequences share, which is so read once for all; or it goes on from the beginning that is piece `beginnings[i]`.
    """

    def __init__(self, lengths: Sequence[int], beginnings: Sequence[int | None], device: torch.device) -> None:
        self.lengths = list(lengths)
        self.beginnings = list(beginnings)
        before = [0 if i is None else self.lengths[i] for i in self.beginnings]
        self.longest = max(a + n for a, n in zip(before, self.lengths, strict=True))
        steps = torch.arange(self.longest)  # on the CPU: a GPU waits for one copy rather than for many small kernels
        own = [steps[a : a + n] for a, n in zip(before, self.lengths, strict=True)]
        self.positions = torch.cat(own).to(device)
        self.uniform = len(set(self.lengths)) == 1 and not any(before)  # as blocks of text are
        # (n, a + n): the beginning and what came before; on its own a piece needs none, and is faster without
        self.masks = [
            (steps[: a + len(at)] <= at[:, None]).to(device) if a else None for a, at in zip(before, own, strict=True)
        ]
        self.bounds: Tensor | None = None  # (n + 1,) where pieces start and end, if the device has a kernel for that
        self.reach = 2 ** (self.longest - 1).bit_length()  # a round number: few different ones to compile for
        if device.type == "cuda" and not any(before) and torch.cuda.get_device_capability(device) >= (8, 0):
            self.bounds = torch.tensor([0, *accumulate(self.lengths)], dtype=torch.int32).to(device)


class KVCache:
    """Keys and values of the tokens seen so far, in memory taken once; rows may differ in length.

    `lengths[b]` tokens of row b count. Prompts of different lengths go in padded on the right; setting `lengths` to
    the true ones afterwards is all it takes, since what lies beyond them is never looked at and then overwritten.
    """

    def __init__(self, model: GPT, batch_size: int, capacity: int) -> None:
        shape = (batch_size, model.config.n_head, capacity, model.key_size)
        weight = model.ln_f.weight  # packed models keep these as they are, in the type that activations have
        # zeros, because what masked attention multiplies by 0 must be finite
        self.k = [torch.zeros(shape, dtype=weight.dtype, device=weight.device) for _ in range(model.config.n_layer)]
        self.v = [torch.zeros_like(k) for k in self.k]
        self.lengths = [0] * batch_size
        self.capacity = capacity

    def positions_and_mask(self, T: int) -> tuple[Tensor, Tensor | None]:
        """Where T new tokens stand, (T,) or (B, T), and what they may see, (B, 1, T, S); None: all before them."""
        device, start = self.k[0].device, self.lengths[0]
        new = torch.arange(T, device=device)
        if len(set(self.lengths)) == 1 and (T == 1 or start == 0):
            return new + start, None
        positions = torch.tensor(self.lengths, device=device)[:, None] + new
        seen = torch.arange(max(self.lengths) + T, device=device)
        return positions, seen <= positions[:, None, :, None]

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Take up the keys and values (B, H, T, D) of new tokens; give back all so far, (B, H, S, D)."""
        T, end = k.shape[2], max(self.lengths) + k.shape[2]
        uniform = len(set(self.lengths)) == 1
        if not uniform:
            rows = torch.arange(len(self.lengths), device=k.device)[:, None]
            places = torch.tensor(self.lengths, device=k.device)[:, None] + torch.arange(T, device=k.device)
        for store, fresh in ((self.k[layer], k), (self.v[layer], v)):
            if uniform:
                store[:, :, end - T : end] = fresh
            else:
                store[rows, :, places] = fresh.transpose(1, 2)
        return self.k[layer][:, :, :end], self.v[layer][:, :, :end]

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; a row may come more than once."""
        index = torch.tensor(rows, device=self.k[0].device)
        self.k = [k.index_select(0, index) for k in self.k]
        self.v = [v.index_select(0, index) for v in self.v]
        self.lengths = [self.lengths[row] for row in rows]
