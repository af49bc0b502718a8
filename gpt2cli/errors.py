"""The errors that a person can act on, and the exit codes of the command.

A message says what happened, where, and what to do about it. The command line shows it as one line.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of every command. A signal's is 128 and its number, as in shells."""

    DONE = 0
    BUG = 1
    USAGE = 2
    DATA = 3
    MODEL = 4
    NETWORK = 5
    RESOURCE = 6
    DIVERGED = 7
    INTERRUPTED = 130  # Ctrl-C
    CLOSED_PIPE = 141  # as if by SIGPIPE


class GPT2Error(Exception):
    """Anything that the person at the keyboard can act on. Shown without a traceback."""

    exit_code = ExitCode.BUG


class UsageError(GPT2Error, ValueError):
    """A wrong option or argument, or a value out of its range."""

    exit_code = ExitCode.USAGE


class DataError(GPT2Error):
    """Input data that cannot be read or used."""

    exit_code = ExitCode.DATA


class CheckpointError(GPT2Error):
    """A model or checkpoint that is damaged, does not fit, or is not to be trusted."""

    exit_code = ExitCode.MODEL


class NetworkError(GPT2Error):
    """The Hub cannot be reached, refuses, or answers nonsense."""

    exit_code = ExitCode.NETWORK


class ResourceError(GPT2Error):
    """Out of disk space, memory or permission, or locked by somebody else."""

    exit_code = ExitCode.RESOURCE


class DivergedError(GPT2Error):
    """The numbers are no longer finite."""

    exit_code = ExitCode.DIVERGED
