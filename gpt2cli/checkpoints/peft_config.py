"""The fields of PEFT's `adapter_config.json`. Those that cannot be applied here are refused by name."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt2cli.config import LoRAConfig
from gpt2cli.errors import CheckpointError
from gpt2cli.untrusted import shown

_KNOWN_FIELDS = {
    # read or checked
    *("r", "lora_alpha", "use_rslora", "base_model_name_or_path", "revision", "rank_pattern", "alpha_pattern"),
    *("use_dora", "peft_type", "bias", "init_lora_weights"),
    # without effect on the meaning of the tensors
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "fan_in_fan_out", "task_type"),
    *("lora_dropout", "inference_mode", "auto_mapping", "eva_config", "qalora_group_size", "megatron_core"),
    "peft_version",
}
_NEVER_MERGED = {
    *("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "ADAPTION_PROMPT", "CPT"),
    *("XLORA", "POLY", "CARTRIDGE"),
}
# the accepted regular expressions: no group is repeated, so that `_ways` can bound the time of a match
_PLAIN_PATTERN = re.compile(r"(?:(?:\w|\\[.dw]|\.|-|\[[\w-]+\])[+*?]?|[()|^$])*", re.ASCII)
_LONGEST_PATTERN, _LONGEST_NAME = 200, 30
_PATTERN_COST, _MOST_WORK = 50, 50_000
"""The cost of compiling a pattern, and the largest cost of a config's patterns, in ways to match a layer's name."""


@dataclass(frozen=True)
class PeftConfig:
    """How PEFT's low-rank matrices are applied. `rank` and `alpha` are those of most layers.

    alphas   the alpha of other layers, by a regular expression for their names
    ranks    all ranks that a layer may have
    by_root  alpha is divided by the root of the rank: rank-stabilised LoRA (Kalajdzievski 2023)
    dora     weights are split into direction and magnitude: DoRA (Liu et al. 2024)
    biases   the file also holds biases, in place of the base's
    """

    rank: int
    alpha: float
    alphas: Mapping[re.Pattern[str], float] = field(default_factory=dict)
    ranks: frozenset[int] = frozenset()
    by_root: bool = False
    dora: bool = False
    biases: bool = False

    @property
    def lora(self) -> LoRAConfig:
        """Rank and alpha of the layers that no pattern matches. This alpha is to be divided by the rank."""
        return LoRAConfig(self.rank, self.alpha * (math.sqrt(self.rank) if self.by_root else 1.0))

    def scale(self, module: str, rank: int) -> float:
        """The factor of a layer's update, by the layer's name in the adapted model and the rank of its matrices."""
        found = (alpha for pattern, alpha in self.alphas.items() if pattern.match(module))
        return next(found, self.alpha) / (math.sqrt(rank) if self.by_root else rank)


def parse_config(fields: Mapping[str, Any], file: Path) -> PeftConfig:
    """The config in these fields. Raises CheckpointError, naming the field, for one that cannot be applied here."""
    kind = fields.get("peft_type")
    if isinstance(kind, str) and kind in _NEVER_MERGED:
        raise CheckpointError(
            f"{file}: peft_type is {shown(kind)}, which cannot be merged into a model: use it with PEFT, or train LoRA"
        )
    for name, default, allowed in (
        ("peft_type", None, ("LORA",)),
        ("bias", "none", ("none", "all", "lora_only")),
        # the others begin with changed base weights
        ("init_lora_weights", True, (True, False, None, "gaussian", "orthogonal", "eva")),
    ):
        if fields.get(name, default) not in allowed:
            raise _not_here(file, name, f"is {shown(fields.get(name))}")
    for name, value in fields.items():
        if value and name not in _KNOWN_FIELDS:
            raise _not_here(file, name if len(name) <= 80 else shown(name), "is set")
    rank, alpha = _rank(fields.get("r"), "r", file), _alpha(fields.get("lora_alpha"), "lora_alpha", file)
    ranks, alphas = (_pattern(fields, name, file) for name in ("rank_pattern", "alpha_pattern"))
    return PeftConfig(
        rank=rank,
        alpha=alpha,
        alphas={
            re.compile(rf"(.*\.)?({name})$"): _alpha(value, "alpha_pattern", file) for name, value in alphas.items()
        },
        ranks=frozenset({rank, *(_rank(value, "rank_pattern", file) for value in ranks.values())}),
        by_root=bool(fields.get("use_rslora")),
        dora=bool(fields.get("use_dora")),
        biases=fields.get("bias", "none") != "none",
    )


def _rank(value: Any, name: str, file: Path) -> int:
    if type(value) is not int or not 1 <= value <= 2**20:
        raise CheckpointError(f"{file}: {name} is {shown(value)}, not a rank: save the adapter again")
    return value


def _alpha(value: Any, name: str, file: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 2**53:
        raise CheckpointError(f"{file}: {name} is {shown(value)}, not a number above 0: save the adapter again")
    return value


def _pattern(fields: Mapping[str, Any], name: str, file: Path) -> dict[str, Any]:
    """A table of values by regular expression. Raises CheckpointError for an expression that may be slow to match."""
    found = fields.get(name) or {}
    if not isinstance(found, dict):
        raise CheckpointError(f"{file}: {name} is {shown(found)}, not a table: save the adapter again")
    work = 0
    for pattern in found:
        work += _PATTERN_COST + _ways(pattern)
        if work > _MOST_WORK or not _is_plain(pattern):
            raise _not_here(file, name, f"is {shown(pattern)}")
    return found


def _is_plain(pattern: str) -> bool:
    try:
        return bool(_PLAIN_PATTERN.fullmatch(pattern)) and bool(re.compile(f"({pattern})"))
    except re.error:
        return False


def _ways(pattern: str) -> int:
    """A bound on the ways to match a plain pattern, from the number of its repetitions and alternatives."""
    if len(pattern) > _LONGEST_PATTERN:
        return _MOST_WORK
    ways: int = _LONGEST_NAME ** sum(map(pattern.count, "+*?"))
    alternatives = [1]  # of the pattern, and of the groups that are open
    for character in pattern:
        if character == "(":
            alternatives.append(1)
        elif character == "|":
            alternatives[-1] += 1
        elif character == ")" and len(alternatives) > 1:
            ways *= alternatives.pop()
    return ways * math.prod(alternatives)


def _not_here(file: Path, name: str, how: str) -> CheckpointError:
    return CheckpointError(f"{file}: {name} {how}, which gpt2cli cannot apply: merge it with PEFT first")
