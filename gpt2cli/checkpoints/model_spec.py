"""One value that says which model: its name or file, the device and the precision."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2cli.checkpoints import places
from gpt2cli.checkpoints.adapter_files import is_adapter, read_adapter_config
from gpt2cli.config import GPTConfig
from gpt2cli.errors import CheckpointError, UsageError
from gpt2cli.hub.names import CONFIG, WEIGHTS
from gpt2cli.hub.tokenizer_files import check_tokenizer, tokenizer_files
from gpt2cli.model.device_names import check_device_name
from gpt2cli.model.part_names import Part
from gpt2cli.paths import asset, expand
from gpt2cli.progress import Progress, ignore
from gpt2cli.published import DEFAULT_MODEL, PUBLISHED, TINY
from gpt2cli.untrusted import is_directory, is_file, shown

if TYPE_CHECKING:
    from gpt2cli.checkpoints.metadata import Metadata
    from gpt2cli.checkpoints.stored_model import StoredModel
    from gpt2cli.inference.decoder import Decoder
    from gpt2cli.model.gpt import GPT


@dataclass(frozen=True)
class ModelSpec:
    """Which model to load, where, and in which precision. Nothing is read or checked before a method is called.

    The methods that compute import NumPy or torch when they are called: `check` can refuse a wrong name at once.

    model      a published name, `tiny`, a Hub repository or a directory; gpt2 if neither `model` nor `ckpt` is given
    ckpt       a checkpoint file, or the directory of a LoRA adapter in PEFT's format. With an adapter, `model` can name
               the base, in place of the one that the adapter names; with a file, `model` must be None.
    precision  of the weights in inference: one of PRECISIONS, or auto (see `automatic_precision` for the compiled
               loops of a CPU, and `pick_precision` for PyTorch)
    offline    raise NetworkError instead of downloading a model
    threads    the number of threads that a decoder has on the CPU; None is the default
    ablate     parts that are taken out of the model: what they add to the residual stream becomes 0. Methods that read
               the weights or the shape raise UsageError for a part that the model does not have.
    """

    model: str | None = None
    ckpt: str | Path | None = None
    device: str = "auto"
    precision: str = "auto"
    offline: bool = False
    threads: int | None = None
    ablate: tuple[Part, ...] = ()

    @property
    def name(self) -> str:
        """The name that the user gave, or the default model's."""
        return str(self.ckpt or self.model or DEFAULT_MODEL)

    @property
    def names_adapter(self) -> bool:
        """Whether `ckpt` is the directory of an adapter."""
        return self.ckpt is not None and is_adapter(expand(self.ckpt))

    def check(self, *, with_base: bool = True) -> None:
        """Raise the errors of `load` that names, first bytes and small files show. Needs neither torch nor a network.

        A model of the Hub may still be missing: only its name is checked. Without `with_base`, an adapter whose base
        cannot be found passes.
        """
        check_device_name(self.device)
        if not with_base and self.model is None and self.ckpt and self.names_adapter:
            read_adapter_config(expand(self.ckpt))
            return
        place = self._local()
        if place is not None:
            places.check_place(place)

    def load(self, progress: Progress = ignore, *, for_text: bool = False, compile: bool = False) -> "Decoder":
        """A decoder of the model, on `device` and in `precision`. It cannot be trained or saved.

        Raises what `load_plain` raises, CheckpointError for weights that the precision cannot hold, and UsageError if
        the device cannot `compile`.
        """
        from gpt2cli.inference.decoder import PRECISIONS, check_graphs, has_kernels, make_decoder
        from gpt2cli.model.device_choice import pick_device

        device = pick_device(self.device)
        if self.precision not in ("auto", *PRECISIONS):
            raise UsageError(f"precision must be auto, {', '.join(PRECISIONS)}, not {self.precision}")
        if compile:
            check_graphs(device)
        if device == "cpu" and has_kernels():
            return self._load_packed(progress, for_text)
        gpt = self.read(progress, for_text=for_text).float().eval()
        return make_decoder(gpt, device, self.precision, compile, self.threads)

    def _load_packed(self, progress: Progress, for_text: bool) -> "Decoder":
        """A decoder of compiled loops, which needs no torch unless a `.pt` file is opened for the first time."""
        from gpt2cli.checkpoints.packed_models import open_or_pack, pack
        from gpt2cli.inference.cpu_decoder import CPUDecoder

        read = partial(self.read_stored, for_text=for_text)
        if self.ablate:  # the packed weights on disk are those of whole models
            packed = pack(read(progress), self.precision)
        else:
            place = self._find(progress, for_text)
            home = place if self.ckpt is None and self._local() is None else None
            packed = open_or_pack(self.files(), self.precision, read, home, progress)
        if for_text:
            check_tokenizer(packed, self.name)
        return CPUDecoder(packed.config, packed.origin, packed.precision, packed.arrays, self.threads)

    def load_plain(self, progress: Progress = ignore, *, for_text: bool = False) -> "GPT":
        """The model in fp32 and evaluation mode, with the adapter merged into its base.

        A model that is not in the cache is downloaded. `progress` gets reports of the download, and notes about what
        was assumed or left out. With `for_text`, a model that was made for another tokenizer than GPT-2's is refused,
        before its weights are downloaded if its other files show it.
        Raises UsageError, CheckpointError, NetworkError or ResourceError.
        """
        import torch

        from gpt2cli.model.device_choice import pick_device

        device = pick_device(self.device)
        return self.read(progress, for_text=for_text).to(device, torch.float32).eval()

    def shape(self, progress: Progress = ignore, *, for_text: bool = False) -> GPTConfig:
        """The model's shape, without its weights. Raises what `load_plain` raises, but does not look at values."""
        return self.read_stored(progress, for_text=for_text, only_shape=True).config

    def read(self, progress: Progress = ignore, *, for_text: bool = False) -> "GPT":
        """As `load_plain`, but on the CPU and in the stored types; only what an adapter changes is in fp32."""
        from gpt2cli.checkpoints.build import build

        return build(self.read_stored(progress, for_text=for_text))

    def read_stored(
        self, progress: Progress = ignore, *, for_text: bool = False, only_shape: bool = False
    ) -> "StoredModel":
        """The model in the stored types. Only a `.pt` file needs torch. Raises what `load_plain` raises.

        Values that are not finite are found when a weight is read. For `only_shape`, see `read_model`.
        """
        from gpt2cli.checkpoints.ablated import without_parts
        from gpt2cli.checkpoints.adapters import read_adapter
        from gpt2cli.checkpoints.read_model import add_adapter, read_model

        adapter = read_adapter(expand(self.ckpt)) if self.ckpt and self.names_adapter else None
        place = self._find(progress, for_text)
        with_facts = adapter is None and self._has_facts and not only_shape
        model = read_model(place, progress, only_shape=only_shape, with_facts=with_facts)
        if adapter is not None:
            model = add_adapter(model, adapter, progress)
        if for_text:
            check_tokenizer(model, self.name)
        return without_parts(model, self.ablate) if self.ablate else model

    def fetch(self, progress: Progress = ignore) -> None:
        """Download the model, if it is not here."""
        self._find(progress, for_text=False)

    def metadata(self) -> "Metadata":
        """The prompt template and the provenance. A model from the Hub has neither.

        Raises CheckpointError for facts that cannot be read.
        """
        from gpt2cli.checkpoints.metadata import NO_METADATA, read_metadata

        if self.ckpt is not None:
            return read_metadata(self.ckpt)
        if self.model in (None, *PUBLISHED):
            return NO_METADATA
        file = (asset(TINY) if self.model == TINY else expand(str(self.model))) / WEIGHTS
        return read_metadata(file) if is_file(file) else NO_METADATA

    def files(self) -> list[Path]:
        """All files that the model depends on. It must have been downloaded.

        Files of a tokenizer count: they decide whether the model is refused for texts. A file of weights may take its
        config and its tokenizer from the files beside it.
        """
        files = _files_of(self._find(ignore, for_text=False))
        return files + _files_of(expand(self.ckpt)) if self.ckpt and self.names_adapter else files

    def depends_on(self, out: Path) -> bool:
        """Whether the model is read from `out`, from something in it, or from a directory around it. Follows links."""
        names = [self.ckpt, self._base]
        local = [expand(name) for name in names if name and name not in (*PUBLISHED, TINY)]
        there = out.resolve()
        sources = [path.resolve() for path in local if path.exists()]
        return any(source in (there, *there.parents) or there in source.parents for source in sources)

    @property
    def _has_facts(self) -> bool:
        """Whether the file or the directory may hold a prompt template: a model from the Hub does not."""
        return self.ckpt is not None or self._local() is not None

    @property
    def _base(self) -> str | None:
        """The name of the model that an adapter is for, or else `model`; None if nothing names it."""
        if self.model is None and self.ckpt and self.names_adapter:
            return read_adapter_config(expand(self.ckpt))[1]
        return self.model

    def _find(self, progress: Progress, for_text: bool) -> Path:
        """The file or the directory with the weights, without the adapter's. It is downloaded if necessary."""
        local = self._local()
        if local is not None:
            return local
        from gpt2cli.hub import models

        name = self._base or DEFAULT_MODEL
        return models.resolve(name, offline=self.offline, progress=progress, for_text=for_text)

    def _local(self) -> Path | None:
        """As `_find`, for a place on this machine; None for a model of the Hub. Raises the errors about wrong names."""
        if self.ckpt is None:
            return places.find_directory(DEFAULT_MODEL if self.model is None else self.model)
        path = expand(self.ckpt)
        if not self.names_adapter:
            if self.model is not None:
                raise UsageError(
                    "--model goes with --ckpt only if --ckpt is the directory of an adapter: give one of them"
                )
            places.check_file(path)
            return path
        base = self._base
        if base is None:
            raise UsageError(f"{path} does not say which model it adapts: name that as --model")
        try:
            return places.find_base(base)
        except UsageError:
            if self.model is not None:
                raise
            raise CheckpointError(f"{path} adapts {shown(base)}, which is no model here: name it as --model") from None


def _files_of(place: Path) -> list[Path]:
    """The files of a model's directory, or a file and those beside it that `read_model` may look at."""
    if is_directory(place):
        weights = [*place.glob("*.safetensors"), *place.glob("*.safetensors.index.json")]
        found = {*weights, *place.glob("*config.json"), *tokenizer_files(place)}
        return sorted(filter(is_file, found))  # to open a FIFO would wait for a writer
    config = place.parent / CONFIG
    return [place, config, *tokenizer_files(place.parent)] if is_file(config) else [place]
