"""All that was found about a prompt, as `gpt2 explain --json` prints it."""

from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from gpt2cli.config import ExplainConfig
from gpt2cli.insight.findings import Finding, Token

Kind = TypeVar("Kind", bound=Finding)


@dataclass
class Explanation:
    """The findings about a prompt, and what they are about.

    model     the model's name
    ids       the tokens of the prompt, with `bos` the end of text before the others
    chat      whether the prompt is an instruction, and `ids` the prompt template with it
    target    the next token that is explained
    foil      the token that it is compared with, if any
    ablated   the names of the parts that were removed from the model
    findings  in the order in which they were found. Some are missing while the explanation is not complete
    """

    model: str
    prompt: str
    ids: tuple[int, ...]
    target: Token
    foil: Token | None = None
    bos: bool = False
    chat: bool = False
    ablated: tuple[str, ...] = ()
    config: ExplainConfig = field(default_factory=ExplainConfig)
    findings: list[Finding] = field(default_factory=list)

    def get(self, kind: type[Kind]) -> Kind | None:
        """The finding of this type, or None if it is not there."""
        return next((finding for finding in self.findings if isinstance(finding, kind)), None)

    def as_dict(self) -> dict[str, Any]:
        """The object of `gpt2 explain --json`: what was asked, then the keys of each finding."""
        asked = {
            "model": self.model,
            "prompt": self.prompt,
            "ids": list(self.ids),
            "bos": self.bos,
            "chat": self.chat,
            "target": asdict(self.target),
            "foil": None if self.foil is None else asdict(self.foil),
            "ablated": list(self.ablated),
            "settings": asdict(self.config),
        }
        return asked | {key: value for finding in self.findings for key, value in finding.as_dict().items()}
