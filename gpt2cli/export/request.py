"""A request for an export, and the checks of it before a model is loaded."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gpt2cli import outputs
from gpt2cli.atomic import recover
from gpt2cli.checkpoints import adapters
from gpt2cli.checkpoints.save import SUFFIXES
from gpt2cli.config import PUBLISHED, TINY
from gpt2cli.errors import NetworkError, UsageError
from gpt2cli.export import huggingface
from gpt2cli.hub import models
from gpt2cli.hub.names import parse_name
from gpt2cli.paths import expand


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
    """A request for an export. `model` and `ckpt` are as for `load`; one of them must be given.

    dtype  the type that weights are written in, None for the format's default
    force  replace an earlier export at `out`
    push   a repository on the Hub, `owner/name`, to upload it to; None if it is not uploaded
    """

    model: str | None
    ckpt: str | None
    format: str
    out: Path
    dtype: str | None = None
    force: bool = False
    push: str | None = None

    @property
    def place(self) -> str:
        """The name by which a card refers to it: the repository, or the name of the directory."""
        return self.push or self.out.name

    def check(self) -> None:
        """Raise UsageError, NetworkError or ResourceError for a request that cannot be fulfilled."""
        if self.model is None and self.ckpt is None:
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
        if form.suffixes and self.out.suffix not in form.suffixes:
            raise UsageError(f"{self.out} is no name for {self.format}: let it end in {' or '.join(form.suffixes)}")
        recover(self.out.absolute())
        outputs.check_file(self.out)
        if self.out.exists():
            if is_read(self.out, self.model, self.ckpt):
                raise UsageError(f"{self.out} is the model to export: write elsewhere")
            self._check_free(form)

    def _check_free(self, form: Format) -> None:
        """Raise UsageError unless `out` is free or may be replaced: only what an export wrote is ever deleted."""
        if form.files:
            if not self.out.is_dir():
                raise UsageError(f"{self.out} is a file, and {self.format} is a directory: write elsewhere")
            there = sorted(path.name for path in self.out.iterdir())
            strangers = [name for name in there if name not in form.files]
            if strangers:
                raise UsageError(f"{self.out} holds {strangers[0]}, which no export wrote: write elsewhere")
            if not there:
                return
        elif self.out.is_dir():
            raise UsageError(f"{self.out} is a directory, and {self.format} is one file: name a file in it")
        if not self.force:
            raise UsageError(f"{self.out} is there already: use --force to replace it, or write elsewhere")


def is_read(out: Path, model: str | None, ckpt: str | None) -> bool:
    """Whether `load` reads `out`, something in it, or something that it is in. Links are followed."""
    there = out.resolve()
    return any(source in (there, *there.parents) or there in source.parents for source in _sources(model, ckpt))


def _sources(model: str | None, ckpt: str | None) -> Iterator[Path]:
    """The files and directories that `model`, `ckpt` and an adapter's base name."""
    names = [model, ckpt]
    if ckpt is not None and model is None and adapters.is_adapter(expand(ckpt)):
        names.append(adapters.read_adapter(expand(ckpt)).base)
    for name in names:
        if name and name not in PUBLISHED and name != TINY and expand(name).exists():
            yield expand(name).resolve()
