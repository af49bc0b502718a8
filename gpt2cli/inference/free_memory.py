"""How much memory a process can take. The limits of containers count."""

from pathlib import Path

import psutil

from gpt2cli.model.device_names import device_kind

UNLIMITED = 2**60
"""A limit of a control group above this is no limit."""
CGROUP = Path("/sys/fs/cgroup")


def more_memory(device: str) -> int | None:
    """Bytes that this process can take on a device, besides those it has; None if that is not known."""
    if device_kind(device) == "cuda":
        import torch

        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + unused)
    if device_kind(device) != "cpu":
        return None
    limits = [left for path in _groups() if (left := left_in(path)) is not None]
    return min([int(psutil.virtual_memory().available), *limits])


def _groups() -> list[Path]:
    """The directories of this process's control group for memory and of the groups around it. In containers too."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return []
    found = []
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers in ("", "memory"):
            root = CGROUP / "memory" if controllers else CGROUP
            inner = root / place.lstrip("/")
            found += [path for path in (inner, *inner.parents) if path == root or root in path.parents]
    return found


def left_in(group: Path) -> int | None:
    """What a control group's limit leaves, in version 2 or 1 of the kernel's interface; None without a limit."""
    for limit, usage in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        try:
            most, used = int((group / limit).read_text()), int((group / usage).read_text())
            statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # not there, or "max"
            continue
        if most < UNLIMITED:
            reclaimable = int(statistics.get("inactive_file", 0))  # the kernel's cache of files
            return max(0, most - used + reclaimable)
    return None
