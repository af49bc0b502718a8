"""What can go wrong, and the exit code that a script sees for it.

A message says what happened, where, and what to do about it; the command line shows it as one line.
"""


class GPT2Error(Exception):
    """An error that the user can act on. The command line shows it without a traceback."""

    exit_code = 1


class UsageError(GPT2Error, ValueError):
    """An option or argument is wrong, or a value is out of range."""

    exit_code = 2


class DataError(GPT2Error):
    """Input data cannot be read or used."""

    exit_code = 3


class CheckpointError(GPT2Error):
    """A model or checkpoint is damaged, does not fit, or cannot be trusted."""

    exit_code = 4


class NetworkError(GPT2Error):
    """The Hub cannot be reached, refuses a request, or sends an invalid answer."""

    exit_code = 5


class ResourceError(GPT2Error):
    """Disk space, memory or a permission is missing, or another process holds a lock."""

    exit_code = 6


class DivergedError(GPT2Error):
    """A number that must be finite is infinite or NaN."""

    exit_code = 7
