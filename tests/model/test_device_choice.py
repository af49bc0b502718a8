"""A device is chosen without importing torch, except where torch may find a GPU."""

import subprocess
import sys
from importlib.machinery import ModuleSpec

import pytest

from gpt2cli.errors import UsageError
from gpt2cli.model import device_choice
from gpt2cli.model.device_choice import gpu_toolkit, may_have_gpu, pick_device

VERSION = """from typing import Optional

__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip']
__version__ = '2.12.0'
debug = False
cuda: Optional[str] = {cuda}
git_version = 'cuda'
hip: Optional[str] = {hip}
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Pretend that torch is installed with this version.py, and not imported."""

    def install(text):
        (tmp_path / "version.py").write_text(text)
        spec = ModuleSpec("torch", None, origin=str(tmp_path / "__init__.py"))
        monkeypatch.setattr(device_choice, "find_spec", lambda name: spec)
        monkeypatch.setattr(device_choice.sys, "modules", {})
        monkeypatch.setattr(device_choice.sys, "platform", "linux")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return install


@pytest.mark.parametrize(
    ("text", "toolkit"),
    [
        (VERSION.format(cuda="None", hip="None"), None),
        (VERSION.format(cuda="'12.8'", hip="None"), "cuda"),
        (VERSION.format(cuda="None", hip="'6.4'"), "hip"),
        ("cuda = '11.8'\n", "cuda"),
        ("cuda = None\n", None),
        ("__version__ = '3'\n", "unknown"),
    ],
    ids=["cpu", "cuda", "hip", "old cuda", "old cpu", "silent"],
)
def test_the_file_of_the_build_says_what_it_is_for(installed, text, toolkit):
    installed(text)
    assert gpu_toolkit() == toolkit


def test_without_the_file_nothing_is_known(installed, monkeypatch):
    installed("")
    monkeypatch.setattr(device_choice, "find_spec", lambda name: None)
    assert gpu_toolkit() == "unknown"
    assert may_have_gpu()


@pytest.mark.parametrize("driver", [True, False])
def test_a_build_for_cuda_needs_the_driver(installed, monkeypatch, driver):
    installed(VERSION.format(cuda="'12.8'", hip="None"))
    monkeypatch.setattr(device_choice, "has_cuda_driver", lambda: driver)
    assert may_have_gpu() == driver
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not may_have_gpu()


def test_a_build_for_the_cpu_is_asked_only_on_a_mac(installed, monkeypatch):
    installed(VERSION.format(cuda="None", hip="None"))
    assert not may_have_gpu()
    monkeypatch.setattr(device_choice.sys, "platform", "darwin")
    assert may_have_gpu()


def test_the_rule_agrees_with_torch():
    import torch

    toolkit = "cuda" if torch.version.cuda else "hip" if torch.version.hip else None
    assert gpu_toolkit() == toolkit
    assert pick_device("cpu") == "cpu"
    with pytest.raises(UsageError, match="device 'cuda:99' is not there; this machine has: "):
        pick_device("cuda:99")


def test_the_cpu_is_chosen_without_torch():
    code = "import sys; from gpt2cli.model.device_choice import pick_device as pick; print(pick('cpu'), *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    picked, *modules = done.stdout.split()
    assert picked == "cpu" and "torch" not in modules, done.stderr
