"""Importing gpt2cli changes as little as possible in the importing process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runner import PATIENCE

PRINT = "import json, os; print(json.dumps(os.environ.get('GOMP_SPINCOUNT')))"


def spin_count(before="", **environment):
    """GOMP_SPINCOUNT after `import gpt2cli`."""
    clean = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    code = f"{before}\nimport gpt2cli\n{PRINT}"
    return json.loads(subprocess.check_output([sys.executable, "-c", code], env=clean | environment, text=True))


def test_waiting_threads_do_not_spin_for_long():
    assert spin_count() == "1000"


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [("GOMP_SPINCOUNT", "7", "7"), ("OMP_WAIT_POLICY", "active", None), ("OMP_WAIT_POLICY", "passive", None)],
)
def test_variables_that_the_user_has_set_stay(variable, value, expected):
    assert spin_count(**{variable: value}) == expected


def test_nothing_is_set_if_torch_is_imported_already():
    assert spin_count("import sys, types; sys.modules['torch'] = types.ModuleType('torch')") is None


def test_importing_the_package_imports_nothing_that_takes_long():
    code = "import sys, gpt2cli; print([m for m in ('torch', 'llvmlite', 'numpy', 'typing') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


WITHOUT_AND_WITH = """
import pathlib
from tests.runner import run_here

steps = ["--max-steps", "1", "--eval-every", "0", "--sample-every", "0", "--save-every", "0", "--val-fraction", "0"]
finetune = ["finetune", "--model", "tiny", "--data", "lessons", "--subset", "8", *steps]
for args in (["--help"], ["generate", "x", "--model", "tiny", "-n", "1"], [*finetune, "--out", "first.pt"]):
    done = run_here(*args)
    assert done.returncode == 0, done.stderr
print(pathlib.Path("imported").exists())
done = run_here(*finetune, "--out", "second.pt", "--wandb")
print(pathlib.Path("imported").exists(), done.returncode)
"""


def test_the_client_of_wandb_is_imported_only_with_its_option(home: Path, tmp_path: Path) -> None:
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "wandb.py").write_text("open('imported', 'w').close()\nraise ImportError('not the real one')\n")
    paths = os.pathsep.join([str(modules), str(Path(__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_AND_WITH],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": paths},
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout) == (0, "False\nTrue 0\n"), done.stderr
