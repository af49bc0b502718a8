"""A request for an export, and its checks before a model is loaded."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from gpt2cli import outputs
from gpt2cli.atomic import recover
from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.errors import NetworkError, UsageError
from gpt2cli.export.formats import DTYPES, FORMATS, OTHER_DTYPES, OTHER_NAMES, Format
from gpt2cli.hub.environment import check_token, is_offline
from gpt2cli.hub.names import parse_name
from gpt2cli.suggestions import did_you_mean
from gpt2cli.untrusted import shown


@dataclass(frozen=True)
class Request:
    """A request for an export. `spec` must name a model or a checkpoint.

    dtype  the type that weights are written in, None for the format's default
    force  whether to replace an earlier export at `out`
    push   a repository on the Hub, `owner/name`, to upload it to; None if it is not uploaded
    """

    spec: ModelSpec
    format: str
    out: Path
    dtype: str | None = None
    force: bool = False
    push: str | None = None

    @property
    def place(self) -> str:
        """The name of the export in a card: the repository, or the name of the directory."""
        return self.push or self.out.name

    def check(self) -> None:
        """Raise UsageError, NetworkError or ResourceError for a request that cannot be fulfilled."""
        if self.spec.model is None and self.spec.ckpt is None:
            raise UsageError("say what to export: --ckpt FILE, or --model NAME")
        if self.format not in FORMATS:
            raise _unknown("--format", self.format, FORMATS, OTHER_NAMES)
        form = FORMATS[self.format]
        self._check_options(form)
        self._check_place(form)
        self.spec.check(with_base=self.format != "peft")

    def _check_options(self, form: Format) -> None:
        if self.dtype is not None and self.dtype not in DTYPES:
            raise _unknown("--dtype", self.dtype, DTYPES, OTHER_DTYPES)
        if self.dtype is not None and self.dtype not in form.dtypes:
            can = f"it takes {', '.join(form.dtypes)}" if form.dtypes else "an adapter is exported as it is"
            raise UsageError(f"--dtype {self.dtype} is not for --format {self.format}: {can}")
        if self.push is not None:
            if not form.goes_to_hub:
                names = ", ".join(name for name, other in FORMATS.items() if other.goes_to_hub)
                raise UsageError(f"--push takes the formats {names}, not {self.format}")
            if "@" in self.push or "/" not in self.push:
                raise UsageError(f"--push takes owner/name, not {self.push[:200]!r}")
            parse_name(self.push)
            if is_offline():
                raise NetworkError("--push cannot work: the network is off (HF_HUB_OFFLINE): unset that variable")
            check_token(self.push)

    def _check_place(self, form: Format) -> None:
        """Raise UsageError or ResourceError unless `out` can be written, and is free or may be replaced."""
        recover(self.out.absolute())
        if form.suffixes:
            outputs.check_suffix(self.out, form.suffixes, self.format)
            outputs.check_file(self.out)
        else:
            outputs.check_name(self.out)
        if not self.out.exists():
            return
        if self.spec.depends_on(self.out):
            raise outputs.refuse_input(self.out, "the model to export")
        if not form.files:
            outputs.check_free(self.out, self.force)
            return
        if not self.out.is_dir():
            raise UsageError(f"{self.out} is a file, and {self.format} is a directory: write elsewhere")
        there = sorted(path.name for path in self.out.iterdir())
        strangers = [name for name in there if name not in form.files]
        if strangers:  # only files that an export wrote are ever deleted
            raise UsageError(f"{self.out} holds {strangers[0]}, which no export wrote: write elsewhere")
        outputs.check_free(self.out, self.force or not there)


def _unknown(option: str, wrong: str, known: Collection[str], others: Mapping[str, str]) -> UsageError:
    """The error for a wrong value of an option."""
    guess = did_you_mean(wrong, known, others)
    return UsageError(f"{option} must be one of {', '.join(known)}, not {shown(wrong)}{guess and f': {guess}'}")
