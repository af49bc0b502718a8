"""The memory that a process used."""

import sys
from contextlib import suppress
from pathlib import Path


def peak_rss_mb() -> float:
    """The peak resident memory of this process, in MB of 2^20 bytes; 0 if the platform does not report it."""
    if sys.platform == "win32":
        return 0.0
    # on Linux, getrusage's figure includes the parent process's memory before the fork
    with suppress(OSError, ValueError, IndexError):  # other platforms have no such file, or another one
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):  # some kernels that imitate Linux lack this line
                return int(line.split()[1]) / 2**10
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
