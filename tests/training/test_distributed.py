"""Which process uses which device, with simulated devices."""

import pytest
import torch

from gpt2cli.errors import UsageError
from gpt2cli.training import distributed
from gpt2cli.training.distributed import joined_ranks, launched_rank, own_device


@pytest.fixture
def launch(monkeypatch):
    """Pretend that torchrun started this process as one of several, on a machine with so many GPUs."""

    def pretend(local_rank: int, processes: int, gpus: int) -> None:
        devices = [*(f"cuda:{i}" for i in range(gpus)), "cpu"]
        monkeypatch.setattr(distributed, "available_devices", lambda: devices)
        monkeypatch.setattr("gpt2cli.model.device.available_devices", lambda: devices)
        monkeypatch.setenv("LOCAL_RANK", str(local_rank))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))

    return pretend


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_each_process_takes_a_gpu_for_itself(launch, name):
    taken = []
    for local_rank in range(4):
        launch(local_rank, processes=4, gpus=4)
        taken.append(own_device(name))
    assert taken == ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]


def test_the_rank_on_this_machine_counts_and_not_that_among_all(launch, monkeypatch):
    launch(1, processes=2, gpus=2)
    monkeypatch.setenv("RANK", "7")
    assert own_device("auto") == "cuda:1"


def test_without_torchrun_and_on_a_cpu_a_device_is_what_it_was_called(launch, monkeypatch):
    launch(1, processes=2, gpus=0)
    assert [own_device(name) for name in ("auto", "cpu")] == ["auto", "cpu"]
    launch(0, processes=1, gpus=2)
    assert [own_device(name) for name in ("auto", "cuda:1", "cpu")] == ["auto", "cuda:1", "cpu"]


def test_too_many_processes_for_the_gpus_are_refused(launch):
    launch(2, processes=3, gpus=2)
    with pytest.raises(UsageError, match="3 processes cannot share 2 GPUs: --nproc-per-node 2"):
        own_device("auto")


def test_one_gpu_for_several_processes_is_refused(launch):
    launch(1, processes=2, gpus=2)
    with pytest.raises(UsageError, match="--device cuda:0 would be shared by 2 processes"):
        own_device("cuda:0")


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE in the environment is 'two'"),
        ({"WORLD_SIZE": "2", "RANK": "-1"}, "RANK in the environment is '-1'"),
        ({"WORLD_SIZE": "2"}, "there is no RANK"),
        ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "localhost"}, "there is no MASTER_PORT"),
        (
            {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "x"},
            "MASTER_PORT in the environment is 'x'",
        ),
    ],
)
def test_half_of_what_torchrun_says_is_refused(monkeypatch, environment, said):
    for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=said):
        launched_rank()
        with joined_ranks(torch.device("cpu")):
            pass


def test_a_rank_alone_does_not_silence_the_only_process(monkeypatch):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert launched_rank() == 0
