"""What a GPT-2 of some shape consists of: its parameters by part, and the work of a token.

Computed from the shape alone, without torch. C = n_embd, V = vocab_size, S = block_size, L = n_layer.
"""

from dataclasses import dataclass

from gpt2cli.config import GPTConfig


@dataclass(frozen=True)
class Parameters:
    """The numbers of parameters, weights and biases, of all layers together.

    embedding  wte, V x C
    position   wpe, S x C
    attention  c_attn and c_proj of every block
    mlp        c_fc and c_proj of every block
    norm       ln_1 and ln_2 of every block, and ln_f
    head       lm_head, V x C; 0 if the head is the embedding
    """

    embedding: int
    position: int
    attention: int
    mlp: int
    norm: int
    head: int

    @property
    def total(self) -> int:
        return self.embedding + self.position + self.attention + self.mlp + self.norm + self.head


def count_parameters(config: GPTConfig) -> Parameters:
    """The parameters of a model of this shape."""
    C, L = config.n_embd, config.n_layer
    return Parameters(
        embedding=config.vocab_size * C,
        position=config.block_size * C,
        attention=L * (4 * C * C + 4 * C),
        mlp=L * (8 * C * C + 5 * C),
        norm=(2 * L + 1) * 2 * C,
        head=0 if config.tied else config.vocab_size * C,
    )


def flops_per_token(config: GPTConfig, context: int) -> int:
    """The floating-point operations of a forward pass for one token that attends to `context` tokens.

    2 (12 L C^2 + C V) + 4 L C context: a multiplication and an addition for each weight of the blocks' matrices and of
    the head ("Scaling Laws for Neural Language Models", Kaplan et al. 2020, section 2.1), and in each block the
    products of the query with all keys and of the attention weights with all values. Biases, norms, GELU and softmax,
    which take far less, do not count, as in `torch.utils.flop_counter`.
    """
    C, L = config.n_embd, config.n_layer
    return 2 * (12 * L * C * C + C * config.vocab_size) + 4 * L * C * context
