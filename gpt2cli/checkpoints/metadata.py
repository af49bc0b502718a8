"""The facts in a checkpoint besides its weights and its shape: its prompt template and its provenance."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2cli.checkpoints import adapter_files
from gpt2cli.checkpoints.configs import decoded
from gpt2cli.checkpoints.files import read_checkpoint
from gpt2cli.checkpoints.gguf_format import GGUFTokenizer
from gpt2cli.checkpoints.limits import plain_facts
from gpt2cli.checkpoints.places import check_file
from gpt2cli.errors import CheckpointError, DataError
from gpt2cli.hub.tokenizer_files import PROVENANCE, Tokenizer, is_gpt2s_vocabulary
from gpt2cli.paths import expand
from gpt2cli.prompts import PromptTemplate
from gpt2cli.untrusted import is_encodable, is_file, shown


@dataclass(frozen=True)
class Metadata:
    """The facts in a checkpoint besides its weights and its config."""

    template: dict[str, str] | None  # the prompt template of the training
    provenance: dict[str, Any]  # the settings, the data and the losses of the training

    @property
    def is_plain_text(self) -> bool:
        """Whether the model was trained on plain text, not on instructions."""
        data = self.provenance.get("data")
        return self.template is None and isinstance(data, dict) and data.get("kind") == "text"

    @property
    def is_conversational(self) -> bool:
        """Whether the model was trained on conversations of more than one exchange."""
        data = self.provenance.get("data")
        turns = data.get("turns") if isinstance(data, dict) else None
        return self.template is not None and isinstance(turns, int) and turns > 1

    def prompt_template(self, where: object) -> PromptTemplate | None:
        """The template, if there is one. Raises CheckpointError if it lacks a part."""
        try:
            return None if self.template is None else PromptTemplate.from_dict(self.template)
        except DataError as error:
            raise CheckpointError(
                f"{where}: the prompt template is damaged ({error}): save the checkpoint again"
            ) from None


NO_METADATA = Metadata(None, {})


def read_metadata(ckpt: str | Path) -> Metadata:
    """The facts in a checkpoint file or in an adapter's directory. Raises CheckpointError if they cannot be read."""
    file = expand(ckpt)
    if adapter_files.is_adapter(file):
        file = file / adapter_files.WEIGHTS
        if not is_file(file):
            raise CheckpointError(f"{file} is not there: save the adapter again")
    else:
        check_file(file)
    return metadata_in(read_checkpoint(file).extra, file)


def metadata_in(extra: Mapping[str, Any], file: object) -> Metadata:
    """The facts among all that stand in `file`. Raises CheckpointError for a template that is none."""
    template, provenance = (decoded(extra.get(name)) for name in ("template", "provenance"))
    if template is not None and not (isinstance(template, dict) and all(map(_is_text, template.items()))):
        raise CheckpointError(f"{file}: template is not a table of texts: save the checkpoint again")
    return Metadata(template, plain_facts(provenance, file) if isinstance(provenance, dict) else {})


def provenance_of(facts: Metadata, other_tokenizer: str | None) -> dict[str, Any]:
    """The provenance for a copy of a model, with the reason why its tokenizer is not GPT-2's, if so."""
    return facts.provenance | ({PROVENANCE: other_tokenizer} if other_tokenizer else {})


def _is_text(item: tuple[Any, Any]) -> bool:
    return all(isinstance(part, str) and is_encodable(part) for part in item)


def tokenizer_in(extra: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that a checkpoint file names: ours in the provenance, a GGUF file's in its vocabulary."""
    provenance, gguf = decoded(extra.get("provenance")), extra.get("tokenizer")
    if isinstance(provenance, dict) and isinstance(provenance.get(PROVENANCE), str):
        return Tokenizer(other=provenance[PROVENANCE][:200], known=True)
    if not isinstance(gguf, GGUFTokenizer):
        return Tokenizer()
    if gguf.kind != "gpt2":
        return Tokenizer(other=f"its tokenizer is a {shown(gguf.kind, 40)}", known=True)
    if gguf.tokens is None:
        return Tokenizer()
    other = None if is_gpt2s_vocabulary(gguf.tokens) else "its vocabulary has other tokens than GPT-2's"
    return Tokenizer(other=other, known=True)
