"""One value that says which model: its name or file, the device and the precision."""

from dataclasses import dataclass
from pathlib import Path

import torch

from gpt2cli.checkpoints import adapters
from gpt2cli.checkpoints.metadata import NO_METADATA, Metadata, read_metadata
from gpt2cli.checkpoints.places import check_file, find_base, find_directory
from gpt2cli.checkpoints.read_model import add_adapter, read_model
from gpt2cli.config import GPTConfig
from gpt2cli.errors import CheckpointError, UsageError
from gpt2cli.hub.models import WEIGHTS
from gpt2cli.hub.tokenizer_files import check_tokenizer
from gpt2cli.inference.decoder import PRECISIONS, Decoder, make_decoder
from gpt2cli.inference.gpu.graph_decoder import check_graphs
from gpt2cli.model.device import pick_device
from gpt2cli.model.gpt import GPT
from gpt2cli.paths import asset, expand
from gpt2cli.progress import Progress, ignore
from gpt2cli.published import DEFAULT_MODEL, PUBLISHED, TINY
from gpt2cli.untrusted import is_directory, is_file, shown


@dataclass(frozen=True)
class ModelSpec:
    """Which model to load, where, and in which precision. Nothing is read or checked before a method is called.

    model      a published name, `tiny`, a Hub repository or a directory; gpt2 if neither `model` nor `ckpt` is given
    ckpt       a checkpoint file, or the directory of a LoRA adapter in PEFT's format. With an adapter, `model` can name
               the base, in place of the one that the adapter names; with a file, `model` must be None.
    precision  of the weights in inference: one of PRECISIONS, or auto (see `pick_precision`)
    offline    raise NetworkError instead of downloading a model
    """

    model: str | None = None
    ckpt: str | Path | None = None
    device: str = "auto"
    precision: str = "auto"
    offline: bool = False

    @property
    def name(self) -> str:
        """The name that the user gave, or the default model's."""
        return str(self.ckpt or self.model or DEFAULT_MODEL)

    @property
    def names_adapter(self) -> bool:
        """Whether `ckpt` is the directory of an adapter."""
        return self.ckpt is not None and adapters.is_adapter(expand(self.ckpt))

    def load(self, progress: Progress = ignore, *, for_text: bool = False, compile: bool = False) -> Decoder:
        """A decoder of the model, on `device` and in `precision`. It cannot be trained or saved.

        Raises what `load_plain` raises, CheckpointError for weights that the precision cannot hold, and UsageError if
        the device cannot `compile`.
        """
        device = pick_device(self.device)
        if self.precision not in ("auto", *PRECISIONS):
            raise UsageError(f"precision must be auto, {', '.join(PRECISIONS)}, not {self.precision}")
        if compile:
            check_graphs(device)
        gpt = self.read(progress, for_text=for_text).float().eval()
        return make_decoder(gpt, device, self.precision, compile)

    def load_plain(self, progress: Progress = ignore, *, for_text: bool = False) -> GPT:
        """The model in fp32 and evaluation mode, with the adapter merged into its base.

        A model that is not in the cache is downloaded. `progress` gets reports of the download, and notes about what
        was assumed or left out. With `for_text`, a model that was made for another tokenizer than GPT-2's is refused,
        before its weights are downloaded if its other files show it.
        Raises UsageError, CheckpointError, NetworkError or ResourceError.
        """
        device = pick_device(self.device)
        return self.read(progress, for_text=for_text).to(device, torch.float32).eval()

    def shape(self, progress: Progress = ignore, *, for_text: bool = False) -> GPTConfig:
        """The model's shape, without its weights. Raises what `load_plain` raises, but does not look at values."""
        return self.read(progress, for_text=for_text, only_shape=True).config

    def read(self, progress: Progress = ignore, *, for_text: bool = False, only_shape: bool = False) -> GPT:
        """As `load_plain`, but on the CPU and in the stored types. For `only_shape`, see `read_model`."""
        adapter = self._adapter()
        model = read_model(self._find(adapter, progress, for_text), progress, only_shape=only_shape)
        if adapter is not None:
            model = add_adapter(model, adapter, progress)
        if for_text:
            check_tokenizer(model, self.name)
        return model

    def fetch(self, progress: Progress = ignore) -> None:
        """Download the model, if it is not here."""
        self._find(self._adapter(), progress, for_text=False)

    def metadata(self) -> Metadata:
        """The prompt template and the provenance. A model from the Hub has neither.

        Raises CheckpointError for facts that cannot be read.
        """
        if self.ckpt is not None:
            return read_metadata(self.ckpt)
        if self.model in (None, *PUBLISHED):
            return NO_METADATA
        file = (asset(TINY) if self.model == TINY else expand(str(self.model))) / WEIGHTS
        return read_metadata(file) if is_file(file) else NO_METADATA

    def files(self) -> list[Path]:
        """All files that the model is made of. It must have been downloaded.

        A file of weights may take its config from the config.json beside it.
        """
        adapter = self._adapter()
        files = _files_of(self._find(adapter, ignore, for_text=False))
        return files if adapter is None else files + _files_of(adapter.directory)

    def depends_on(self, out: Path) -> bool:
        """Whether the model is read from `out`, from something in it, or from a directory around it. Follows links."""
        adapter = self._adapter() if self.model is None else None
        names = [self.model, self.ckpt, adapter and adapter.base]
        local = [expand(name) for name in names if name and name not in (*PUBLISHED, TINY)]
        there = out.resolve()
        sources = [path.resolve() for path in local if path.exists()]
        return any(source in (there, *there.parents) or there in source.parents for source in sources)

    def _adapter(self) -> adapters.Adapter | None:
        return adapters.read_adapter(expand(self.ckpt)) if self.ckpt and self.names_adapter else None

    def _find(self, adapter: adapters.Adapter | None, progress: Progress, for_text: bool) -> Path:
        """The file or the directory with the weights, without the adapter's. It is downloaded if necessary."""
        if adapter is None and self.ckpt is not None:
            if self.model is not None:
                raise UsageError(
                    "--model goes with --ckpt only if --ckpt is the directory of an adapter: give one of them"
                )
            path = expand(self.ckpt)
            check_file(path)
            return path
        if adapter is None:
            return find_directory(DEFAULT_MODEL if self.model is None else self.model, self.offline, progress, for_text)
        if self.model is not None:
            return find_base(self.model, self.offline, progress, for_text)
        if adapter.base is None:
            raise UsageError(f"{adapter.directory} does not say which model it adapts: name that as --model")
        try:
            return find_base(adapter.base, self.offline, progress, for_text)
        except UsageError:
            raise CheckpointError(
                f"{adapter.directory} adapts {shown(adapter.base)}, which is no model here: name it as --model"
            ) from None


def _files_of(place: Path) -> list[Path]:
    if is_directory(place):
        return sorted([*place.glob("*.safetensors"), *place.glob("*config.json")])
    return [place, *place.parent.glob("config.json")]
