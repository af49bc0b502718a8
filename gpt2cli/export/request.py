"""A request for an export, and its checks before a model is loaded."""

from dataclasses import dataclass
from pathlib import Path

from gpt2cli import outputs
from gpt2cli.atomic import recover
from gpt2cli.checkpoints import adapters
from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.checkpoints.save import SUFFIXES
from gpt2cli.errors import NetworkError, UsageError
from gpt2cli.export import huggingface
from gpt2cli.hub import models
from gpt2cli.hub.names import parse_name


@dataclass(frozen=True)
class Format:
    """The result of an export: one file, whose name ends in one of `suffixes`, or a directory that holds only `files`.

    dtypes       the types that weights may be written in, the default first; if empty, they keep their type
    goes_to_hub  whether it may be uploaded to the Hub
    """

    suffixes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = tuple(huggingface.DTYPES)
    goes_to_hub: bool = False


FORMATS = {
    "hf": Format(files=huggingface.FILES, goes_to_hub=True),
    "gguf": Format(suffixes=(".gguf",), dtypes=(*huggingface.DTYPES, "q8_0"), goes_to_hub=True),
    "peft": Format(files=(adapters.CONFIG, adapters.WEIGHTS, huggingface.CARD), dtypes=(), goes_to_hub=True),
    "nanogpt": Format(suffixes=SUFFIXES),
    "original": Format(suffixes=SUFFIXES),
    "gpt2cli": Format(suffixes=SUFFIXES),
}
DTYPES = FORMATS["gguf"].dtypes
"""All types that weights can be written in, by llama.cpp's names."""


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
            raise UsageError(f"--format must be one of {', '.join(FORMATS)}, not {self.format!r}")
        form = FORMATS[self.format]
        self._check_options(form)
        self._check_place(form)

    def _check_options(self, form: Format) -> None:
        if self.dtype is not None and self.dtype not in DTYPES:
            raise UsageError(f"--dtype must be one of {', '.join(DTYPES)}, not {self.dtype!r}")
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
            if models.is_offline():
                raise NetworkError("--push cannot work: the network is off (HF_HUB_OFFLINE): unset that variable")

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
