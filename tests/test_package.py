"""What importing gpt2cli does to somebody's process: as little as possible."""

import json
import os
import subprocess
import sys

import pytest

PRINT = "import json, os; print(json.dumps(os.environ.get('GOMP_SPINCOUNT')))"


def spin_count(before="", **environment):
    """GOMP_SPINCOUNT after `import gpt2cli`."""
    clean = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    code = f"{before}\nimport gpt2cli\n{PRINT}"
    return json.loads(subprocess.check_output([sys.executable, "-c", code], env=clean | environment, text=True))


def test_threads_that_wait_do_not_spin_for_long():
    assert spin_count() == "1000"


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [("GOMP_SPINCOUNT", "7", "7"), ("OMP_WAIT_POLICY", "active", None), ("OMP_WAIT_POLICY", "passive", None)],
)
def test_what_the_user_has_set_stays(variable, value, expected):
    assert spin_count(**{variable: value}) == expected


def test_it_is_too_late_once_torch_is_there():
    assert spin_count("import sys, types; sys.modules['torch'] = types.ModuleType('torch')") is None


def test_importing_the_package_imports_nothing_that_takes_long():
    code = "import sys, gpt2cli; print([m for m in ('torch', 'numba', 'numpy', 'typing') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
