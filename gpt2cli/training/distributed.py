"""One process among several: who it is, and what all of them agree on. Started by `torchrun -m gpt2cli finetune`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from gpt2cli.errors import UsageError
from gpt2cli.model.device import available_devices, pick_device
from gpt2cli.untrusted import shown


@dataclass(frozen=True)
class Ranks:
    """This process's number, and how many there are. Rank 0 speaks and writes for all."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def sum(self, *values: float) -> list[float]:
        """Each value summed over all processes."""
        if self.world_size == 1:
            return list(values)
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        tensor = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(tensor)
        summed: list[float] = tensor.tolist()
        return summed

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world_size > 1:
            dist.barrier()


def launched_rank() -> int:
    """The rank that torchrun gave this process; 0 without torchrun. Raises UsageError if it is not a number."""
    return _told("RANK", 0) if _told("WORLD_SIZE", 1) > 1 else 0


def _told(name: str, default: int) -> int:
    """A number that torchrun puts into the environment. Raises UsageError for any other value."""
    value = os.environ.get(name) or str(default)
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise UsageError(f"{name} in the environment is {shown(value)}, not a count: unset it, or start with torchrun")
    return int(value)


def own_device(name: str) -> str:
    """The device of this process, where `name` is `--device` as given to all. Under torchrun each takes its own GPU.

    Raises UsageError if torchrun started more processes on this machine than it has GPUs, or `name` is a single GPU.
    """
    processes, local_rank = _told("LOCAL_WORLD_SIZE", 1), _told("LOCAL_RANK", 0)
    picked = pick_device(name)
    if processes == 1 or picked.type != "cuda":
        return name
    gpus = [device for device in available_devices() if device.startswith("cuda")]
    if name not in ("auto", "cuda"):
        raise UsageError(f"--device {name} would be shared by {processes} processes: give --device cuda")
    if processes > len(gpus):
        raise UsageError(f"{processes} processes cannot share {len(gpus)} GPUs: --nproc-per-node {len(gpus)}")
    return gpus[local_rank]


@contextmanager
def joined_ranks(device: torch.device) -> Iterator[Ranks]:
    """Join the other processes, if torchrun started any, over nccl on CUDA and gloo elsewhere, and leave them.

    Raises UsageError if the environment has only some of torchrun's variables.
    """
    world_size = _told("WORLD_SIZE", 1)
    if world_size <= 1:
        yield Ranks()
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise UsageError(
            f"WORLD_SIZE in the environment is {world_size}, but there is no {missing[0]}: "
            "unset it, or start with torchrun"
        )
    _told("MASTER_PORT", 0)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), world_size)
    finally:
        dist.destroy_process_group()
