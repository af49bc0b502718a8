"""The default number of threads for the compiled loops."""

import os
import sys
from contextlib import suppress
from pathlib import Path

_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def default_threads() -> int:
    """OMP_NUM_THREADS if it is set, else the number of processor cores that this process may use.

    Two hardware threads of a core count once: they share its arithmetic units. PyTorch has the same default.
    """
    with suppress(KeyError, ValueError):
        if (asked := int(os.environ["OMP_NUM_THREADS"].partition(",")[0])) > 0:
            return asked
    if sys.platform != "linux":
        import psutil

        return psutil.cpu_count(logical=False) or os.cpu_count() or 1
    available = os.sched_getaffinity(0)
    try:
        return len({Path(_SIBLINGS.format(cpu)).read_text() for cpu in available})
    except OSError:  # some containers hide it
        return len(available)
