"""`gpt2 bench`: its object, its table and its errors."""

import json
import subprocess
import sys

import pytest

from gpt2cli.cli.commands import bench as commands
from gpt2cli.inference.cpu import bandwidth
from gpt2cli.inference.decoder import PRECISIONS
from tests import models

FIELDS = [
    *("model", "precision", "threads", "prefill_tok_s", "decode_tok_s", "load_s", "peak_rss_mb"),
    *("weight_bytes_per_token", "memory_bandwidth_gb_s", "roofline_tok_s", "roofline_fraction"),
]
SHORT = ("--prompt-tokens", "5", "--new-tokens", "4", "--repeats", "1", "--threads", "1", "--device", "cpu")


@pytest.fixture(autouse=True)
def small_buffer(monkeypatch):
    """The memory's bandwidth is measured with little memory."""
    monkeypatch.setattr(bandwidth, "BUFFER_BYTES", 2**20)


@pytest.fixture(autouse=True)
def one_process(run, monkeypatch):
    """`--all` measures int8 in a process of its own, as it does elsewhere, and the others here, to save time."""
    start = subprocess.run

    def start_or_call(command, **options):
        assert command[:4] == [sys.executable, "-m", "gpt2cli", "bench"]
        return start(command, **options) if "--precision=int8" in command else run(*command[3:])

    monkeypatch.setattr(commands.subprocess, "run", start_or_call)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return str(models.save_hub_directory(models.small_model(), tmp_path_factory.mktemp("small")))


def test_json_has_the_fields_of_the_contract(run, directory):
    done = run("bench", "--model", directory, *SHORT, "--precision", "fp32", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    [speed] = map(json.loads, done.stdout.splitlines())
    assert list(speed) == FIELDS
    assert (speed["model"], speed["precision"], speed["threads"]) == (directory, "fp32", 1)
    assert all(speed[name] > 0 for name in FIELDS[3:])


@pytest.mark.parametrize("how", ["run", pytest.param("run_process", marks=pytest.mark.slow)])
def test_all_measures_every_precision(request, directory, how):
    done = request.getfixturevalue(how)("bench", "--model", directory, *SHORT, "--all", "--json")
    assert done.returncode == 0, done.stderr
    speeds = [json.loads(line) for line in done.stdout.splitlines()]
    assert [speed["precision"] for speed in speeds] == list(PRECISIONS)
    assert all(list(speed) == FIELDS for speed in speeds)


def test_people_see_speeds_and_the_limit(run, directory):
    done = run("bench", "--model", directory, *SHORT, env={"COLUMNS": "60"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "of what the memory allows" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 60


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--new-tokens", "1"), "--new-tokens must be 2 or more"),
        (("--prompt-tokens", "0"), "--prompt-tokens must be 1 or more"),
        (("--repeats", "0"), "--repeats must be 1 or more"),
        (("--prompt-tokens", "30", "--new-tokens", "8"), "ask for 1 fewer"),
        (("--all", "--precision", "int8"), "leave --precision out"),
        (("--all", "--prompt-tokens", "30", "--new-tokens", "8"), "ask for 1 fewer"),
    ],
)
def test_errors_are_one_line(run, directory, options, says):
    done = run("bench", "--model", directory, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr
