"""What is known of the machine where it says little."""

from pathlib import Path

import pytest
import torch

from gpt2cli.model.device import repeatable
from gpt2cli.model.peak_memory import peak_rss_mb


@pytest.mark.parametrize("status", ["", "Name:\tpython\nVmRSS:\t1 kB\n"])
def test_a_kernel_without_a_peak_is_asked_in_another_way(monkeypatch, status):
    pytest.importorskip("resource")
    monkeypatch.setattr(Path, "exists", lambda path: True)
    monkeypatch.setattr(Path, "read_text", lambda path: status)
    assert 10 < peak_rss_mb() < 1e6


def test_the_peak_is_the_one_that_linux_tells(monkeypatch):
    pytest.importorskip("resource")
    monkeypatch.setattr(Path, "exists", lambda path: True)
    monkeypatch.setattr(Path, "read_text", lambda path: "VmPeak:\t 1 kB\nVmHWM:\t  2048 kB\n")
    assert peak_rss_mb() == 2.0


def test_the_peak_is_told_where_proc_may_not_be_read(monkeypatch):
    pytest.importorskip("resource")

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    for name in ("read_text", "exists"):
        monkeypatch.setattr(Path, name, refuse)
    assert 10 < peak_rss_mb() < 1e6


@pytest.mark.parametrize(("workspace", "warns"), [(":4096:8", False), (":0:0", True), (None, True)])
def test_cuda_computes_attention_in_a_fixed_order_if_cublas_can(monkeypatch, workspace, warns):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    if workspace:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", workspace)

    with repeatable(torch.device("cuda")):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled() is warns

    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
