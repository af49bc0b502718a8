"""Training in several processes, started by `torchrun -m gpt2cli finetune`: ranks, devices and sums over all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from gpt2cli.errors import UsageError
from gpt2cli.model.device import available_devices
from gpt2cli.model.device_choice import pick_device
from gpt2cli.model.device_names import device_kind
from gpt2cli.untrusted import shown


@dataclass(frozen=True)
class Ranks:
    """The number of this process, and how many there are. Only rank 0 shows messages and writes files."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def sum(self, *values: float) -> list[float]:
        """The sum over all processes, for each value."""
        if self.world_size == 1:
            return list(values)
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        tensor = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(tensor)
        summed: list[float] = tensor.tolist()
        return summed

    def wait(self) -> None:
        """Wait until all processes call this."""
        if self.world_size > 1:
            dist.barrier()


def launched_rank() -> int:
    """The rank that torchrun gave this process; 0 without torchrun. Raises UsageError if it is not a number."""
    return _number("RANK", 0) if _number("WORLD_SIZE", 1) > 1 else 0


def _number(name: str, default: int) -> int:
    """A number from an environment variable that torchrun sets. Raises UsageError for any other value."""
    value = os.environ.get(name) or str(default)
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise UsageError(f"{name} in the environment is {shown(value)}, not a count: unset it, or start with torchrun")
    return int(value)


def own_device(name: str) -> str:
    """The device of this process. `name` is the value of `--device`; under torchrun, each process gets another GPU.

    Raises UsageError if torchrun started more processes than this machine has GPUs, or if `name` is one of the GPUs.
    """
    processes, local_rank = _number("LOCAL_WORLD_SIZE", 1), _number("LOCAL_RANK", 0)
    picked = pick_device(name)
    if processes == 1 or device_kind(picked) != "cuda":
        return name
    gpus = [device for device in available_devices() if device.startswith("cuda")]
    if name not in ("auto", "cuda"):
        raise UsageError(f"--device {name} would be shared by {processes} processes: give --device cuda")
    if processes > len(gpus):
        raise UsageError(f"{processes} processes cannot share {len(gpus)} GPUs: --nproc-per-node {len(gpus)}")
    return gpus[local_rank]


@contextmanager
def joined_ranks(device: torch.device) -> Iterator[Ranks]:
    """Connect the processes of torchrun, if it was used, by nccl on CUDA and gloo elsewhere, within the context.

    Raises UsageError if only some of torchrun's environment variables are set.
    """
    world_size = _number("WORLD_SIZE", 1)
    if world_size <= 1:
        yield Ranks()
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise UsageError(
            f"WORLD_SIZE in the environment is {world_size}, but there is no {missing[0]}: "
            "unset it, or start with torchrun"
        )
    _number("MASTER_PORT", 0)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), world_size)
    finally:
        dist.destroy_process_group()
