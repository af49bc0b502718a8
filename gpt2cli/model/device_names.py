"""The names of devices, which can be checked without torch. Only torch knows which devices this machine has."""

import re

from gpt2cli.errors import UsageError
from gpt2cli.suggestions import advise, did_you_mean
from gpt2cli.untrusted import shown

KINDS = ("auto", "cpu", "cuda", "mps")
_NAME = re.compile(r"auto|cpu|mps|cuda(:\d{1,4})?")
_OTHER_NAMES = dict.fromkeys(("gpu", "nvidia", "rocm", "hip"), "cuda") | dict.fromkeys(("metal", "apple"), "mps")
"""What other programs call these devices. PyTorch for AMD calls its devices cuda, too."""


def check_device_name(name: str) -> None:
    """Raise UsageError for a name that no device can have."""
    if not _NAME.fullmatch(name):
        guess = did_you_mean(name, KINDS, _OTHER_NAMES)
        advice = advise(guess, "give auto, cpu, cuda, cuda:N or mps")
        raise UsageError(f"device {shown(name)} is not there: {advice}")


def device_kind(device: str) -> str:
    """cpu, cuda or mps: the device's name without its number."""
    return device.partition(":")[0]
