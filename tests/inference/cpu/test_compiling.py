"""Machine code is stored under names that depend on its sources. Damaged, foreign or missing code is compiled anew."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import platformdirs
import pytest

from gpt2cli.inference import cpu_decoder
from gpt2cli.inference.cpu import compiling, entry_points
from gpt2cli.inference.cpu.compiled_store import Store
from gpt2cli.inference.cpu.compiler.functions import called
from gpt2cli.inference.cpu.compiler.translate import Unit
from gpt2cli.inference.cpu.shared_memory import array_at
from gpt2cli.inference.decoder import has_kernels
from tests import models

pytestmark = pytest.mark.skipif(not has_kernels(), reason="no loops for this processor")
ROOT = Path(cpu_decoder.__file__).parents[2]


def double(table, thread):
    x = array_at(table, (1,), np.float32)
    x[0] += x[0]


@pytest.fixture
def compiled(tmp_path, monkeypatch):
    """A temporary store, and a list of the compilations. What is compiled takes no time."""
    store, compilations = Store(tmp_path / "cache"), []

    def small(precision):
        compilations.append(precision)
        unit = Unit(precision)
        for name in compiling.Loops._fields:
            unit.add_entry_point(called(double), name, parameters=2)
        return str(unit.module)

    monkeypatch.setattr(entry_points, "module_for", small)
    monkeypatch.setattr(compiling, "store", lambda: store)
    return compilations


def run():
    """Compile or read the loops as a new process would, and run one."""
    x = np.array([1.5], np.float32)
    compiling.loops.__wrapped__("fp16").forward(x.ctypes.data, 0)
    assert x[0] == 3


def stored():
    return [file for file in compiling.store().directory.iterdir() if file.suffix != ".lock" and file.name[0] != "."]


def test_compiled_code_is_found_again(compiled):
    assert not compiling.is_compiled("fp16")
    run()
    run()
    assert compiled == ["fp16"]
    assert compiling.is_compiled("fp16") and not compiling.is_compiled("int8")
    assert len(stored()) == 1


@pytest.mark.parametrize("length", [0, 10, 500, -1])
def test_damaged_code_is_compiled_anew(compiled, length):
    run()
    [file] = stored()
    os.truncate(file, length if length >= 0 else file.stat().st_size - 1)
    assert not compiling.is_compiled("fp16")
    run()
    run()
    assert compiled == ["fp16"] * 2


@pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX's")
def test_code_that_others_could_have_written_is_never_run(compiled):
    run()
    compiling.store().directory.chmod(0o777)
    run()
    assert compiled == ["fp16"] * 2


@pytest.mark.parametrize("content", [b"", b"no object file"])
def test_content_that_is_no_code_is_compiled_anew(compiled, content):
    run()
    [file] = stored()
    compiling.store().write(file.name, content)
    run()
    run()
    assert compiled == ["fp16"] * 2


def test_without_a_store_it_is_compiled_each_time(compiled, monkeypatch):
    nowhere = Store(None)
    monkeypatch.setattr(compiling, "store", lambda: nowhere)
    run()
    run()
    assert compiled == ["fp16"] * 2
    assert not compiling.is_compiled("fp16")


def test_a_file_system_without_locks_is_no_error(compiled, monkeypatch):
    def refused(path):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr("filelock.FileLock", refused)
    run()
    assert compiling.is_compiled("fp16")


def test_without_home_and_account_there_is_no_store(monkeypatch):
    def unknown(*args, **options):
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr(platformdirs, "user_cache_dir", unknown)
    monkeypatch.delenv("GPT2CLI_CACHE", raising=False)
    assert compiling.store.__wrapped__().problem == "there is no home directory"


def test_the_same_package_elsewhere_finds_the_same_files(tmp_path):
    """Names depend on sources and versions, so a new virtual environment need not compile."""
    shutil.copytree(ROOT / "gpt2cli", tmp_path / "gpt2cli", ignore=shutil.ignore_patterns("assets", "__pycache__"))
    code = "from gpt2cli.inference.cpu import compiling as c; print(c.__file__, c._file_name('fp16'))"
    found = [subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, text=True).split()]
    kernel = tmp_path / "gpt2cli" / "inference" / "cpu" / "compiler" / "values.py"
    kernel.write_text(kernel.read_text() + "# another version\n")
    found.append(subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, text=True).split())
    assert all(Path(file).is_relative_to(tmp_path) for file, _ in found)
    assert found[0][1] == compiling._file_name("fp16") != found[1][1]


def test_the_note_says_why_nothing_is_stored(compiled, monkeypatch):
    model = models.packed(models.small_model(), "fp16")
    nowhere = Store(None)
    for module in (compiling, cpu_decoder):
        monkeypatch.setattr(module, "store", lambda: nowhere)
    note = model.compiling_note()
    assert "in every run: they cannot be kept (there is no home directory); set GPT2CLI_CACHE" in note
