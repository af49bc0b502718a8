"""What can go wrong, and the exit code that a script sees for it.

A message says what happened, where, and what to do about it; the command line shows it as one line.
"""


class GPT2Error(Exception):
    """Anything that the person at the keyboard can act on. Shown without a traceback."""

    exit_code = 1


class UsageError(GPT2Error, ValueError):
    """A wrong option or argument, or a value out of its range."""

    exit_code = 2


class DataError(GPT2Error):
    """Input data that cannot be read or used."""

    exit_code = 3


class CheckpointError(GPT2Error):
    """A model or checkpoint that is damaged, does not fit, or is not to be trusted."""

    exit_code = 4


class NetworkError(GPT2Error):
    """The Hub cannot be reached, refuses, or answers nonsense."""

    exit_code = 5


class ResourceError(GPT2Error):
    """Out of disk space, memory or permission, or locked by somebody else."""

    exit_code = 6


class DivergedError(GPT2Error):
    """The numbers are no longer finite."""

    exit_code = 7
