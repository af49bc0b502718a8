"""What the README shows works: its Python, its options, and the whole way from the Hub to text."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import models
from tests.runner import clean_environment

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def hub_with_gpt2(hub, tmp_path):
    """The local Hub serves a small model with GPT-2's vocabulary as `gpt2`."""
    directory = models.save_hub_directory(models.small_model(), tmp_path / "served")
    hub.files = {path.name: path.read_bytes() for path in directory.iterdir()}
    return hub


def test_the_python_example_runs(hub_with_gpt2):
    [example] = re.findall(r"<!-- test: python -->\n```python\n(.*?)```", README, re.DOTALL)
    code = example + "\nassert text and logits.shape == (1, 5, 50257)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean_environment())
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert hub_with_gpt2.requests("GET", "model.safetensors") == [None]


def test_generate_downloads_on_first_use_and_never_again(hub_with_gpt2, run):
    args = ("generate", "The meaning of life is", "--temp", "0.7", "--top-k", "40", "--seed", "1", "-n", "5")
    first = run(*args)
    assert first.returncode == 0
    assert "downloaded 2 files" in first.stderr
    requests = list(hub_with_gpt2.log)
    second = run(*args, "--offline")
    assert (second.stdout, second.stderr) == (first.stdout, "")
    assert hub_with_gpt2.log == requests
    [listed] = run("download-weights", "--list", "--json").stdout.splitlines()
    assert json.loads(listed)["model"] == "gpt2"


@pytest.mark.parametrize(("command", "section", "at_least"), [("generate", "Write", 15), ("evaluate", "Know how", 6)])
def test_every_option_in_the_table_is_there(run, command, section, at_least):
    page = run(command, "--help", env={"COLUMNS": "200"}).stdout
    [text] = [part for part in README.split("\n## ") if part.startswith(section)]
    rows = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    options = re.findall(r"`(-[-\w]+)", " ".join(rows))
    assert len(options) >= at_least
    assert [option for option in options if option not in page] == []
