"""Compiled loops are stored under names that depend on their sources. Damaged, foreign or missing ones are compiled."""

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import platformdirs
import pytest

from gpt2cli.inference import cpu_decoder
from gpt2cli.inference.cpu.compiled_store import Store
from gpt2cli.inference.cpu_decoder import CPUDecoder
from gpt2cli.inference.decoder import has_kernels
from tests import models

pytestmark = pytest.mark.skipif(not has_kernels(), reason="needs Numba")
ROOT = Path(cpu_decoder.__file__).parents[2]


def double(x):
    return x + x


@pytest.fixture
def compiling(tmp_path, monkeypatch):
    """The module, with a temporary store."""
    from gpt2cli.inference.cpu import compiling

    store = Store(tmp_path / "cache")
    monkeypatch.setattr(compiling, "store", lambda: store)
    monkeypatch.setattr(compiling, "_used", set())
    monkeypatch.setattr(compiling, "_read_ahead", {})
    return compiling


def hits(compiling):
    """Compile or read the function, as a new process would. Returns the number of reads."""
    dispatcher = compiling.compiled(double)
    assert dispatcher(np.float32(1.5)) == 3
    return sum(dispatcher.stats.cache_hits.values())


def test_compiled_code_is_found_again(compiling):
    assert [hits(compiling), hits(compiling)] == [0, 1]
    assert compiling.compiled(double)(2) == 4  # other types are another file
    assert len(list(compiling.store().directory.iterdir())) == 2


@pytest.mark.parametrize("length", [0, 10, 500, -1])
def test_damaged_code_is_compiled_anew(compiling, length):
    hits(compiling)
    [file] = compiling.store().directory.iterdir()
    os.truncate(file, length if length >= 0 else file.stat().st_size - 1)
    assert [hits(compiling), hits(compiling)] == [0, 1]


class Planted:
    """Makes a directory when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX's")
def test_code_that_others_could_have_written_is_never_unpickled(compiling, tmp_path, whole):
    hits(compiling)
    store, mark = compiling.store(), tmp_path / "executed"
    [file] = store.directory.iterdir()
    plant = pickle.dumps(Planted(mark))
    if whole:  # with a valid digest
        store.write(file.name, plant)
    else:
        file.write_bytes(plant)
    store.directory.chmod(0o777)
    assert hits(compiling) == 0
    assert not mark.exists()
    store.directory.chmod(0o700)
    hits(compiling)
    assert mark.exists() == whole  # it is unpickled if only the user can write to the directory


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps([]), pickle.dumps(7), b"cgpt2cli\nnothing\n."])
def test_content_that_cannot_be_rebuilt_is_compiled_anew(compiling, content):
    hits(compiling)
    store = compiling.store()
    [file] = store.directory.iterdir()
    store.write(file.name, content)
    assert [hits(compiling), hits(compiling)] == [0, 1]


def test_without_a_store_it_is_compiled_each_time(compiling, monkeypatch):
    nowhere = Store(None)
    monkeypatch.setattr(compiling, "store", lambda: nowhere)
    with compiling.compile_lock("fp16"):
        assert [hits(compiling), hits(compiling)] == [0, 0]
    assert not compiling.is_compiled("fp16")


def test_a_precision_is_compiled_if_all_its_loops_are_stored_undamaged(compiling):
    assert not compiling.is_compiled("fp16")
    with compiling.compile_lock("fp16"):
        hits(compiling)
    assert compiling.is_compiled("fp16")
    assert not compiling.is_compiled("int8")
    [loop] = compiling._used
    os.truncate(compiling.store().directory / loop, 100)
    assert not compiling.is_compiled("fp16")
    with compiling.compile_lock("fp16"):
        hits(compiling)
    assert compiling.is_compiled("fp16")
    os.truncate(compiling.store().directory / compiling._list_name("fp16"), 0)
    assert not compiling.is_compiled("fp16")


def test_checked_loops_are_read_once(compiling, monkeypatch):
    with compiling.compile_lock("fp16"):
        hits(compiling)
    read = []
    content_of = compiling.store().read
    monkeypatch.setattr(compiling.store(), "read", lambda name: (read.append(name), content_of(name))[1])
    assert compiling.is_compiled("fp16")
    with compiling.compile_lock("fp16"):
        assert hits(compiling) == 1
    [loop] = compiling._used
    assert read.count(loop) == 1


def test_a_file_system_without_locks_is_no_error(compiling, monkeypatch):
    def refused(path):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(compiling, "FileLock", refused)
    with compiling.compile_lock("fp16"):
        hits(compiling)
    assert compiling.is_compiled("fp16")


def test_without_home_and_account_there_is_no_store(monkeypatch):
    from gpt2cli.inference.cpu import compiling

    def unknown(*args, **options):
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr(platformdirs, "user_cache_dir", unknown)
    monkeypatch.setattr(compiling.config, "CACHE_DIR", "")
    assert compiling.store.__wrapped__().problem == "there is no home directory"


def test_the_same_package_elsewhere_finds_the_same_files(tmp_path):
    """Names depend on sources and versions, so a new virtual environment need not compile."""
    from gpt2cli.inference.cpu.compiling import _basis

    shutil.copytree(ROOT / "gpt2cli", tmp_path / "gpt2cli", ignore=shutil.ignore_patterns("assets", "__pycache__"))
    code = "from gpt2cli.inference.cpu import compiling as c; print(c.__file__, c._basis().hex())"
    found = [subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, text=True).split()]
    kernel = tmp_path / "gpt2cli" / "model" / "quantization.py"
    kernel.write_text(kernel.read_text() + "# another version\n")
    found.append(subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, text=True).split())
    assert all(Path(file).is_relative_to(tmp_path) for file, _ in found)
    assert found[0][1] == _basis().hex() != found[1][1]


def test_the_first_step_from_python_compiles_as_the_command_does(monkeypatch):
    """It holds the lock, and writes the list of loops."""
    import torch

    model, calls = CPUDecoder(models.small_model(), "fp16"), []
    warm_up = model.warm_up
    monkeypatch.setattr(model, "warm_up", lambda: (calls.append(1), warm_up()))
    for _ in range(2):
        model(torch.tensor([[1, 2]]))
    assert calls == [1]
    assert model.compiling_note() is None


def test_the_note_says_why_nothing_is_stored(compiling, monkeypatch):
    model = CPUDecoder(models.small_model(), "fp16")
    assert model.compiling_note() == "compiling the fp16 loops for this processor, only this time: ten seconds or more"
    nowhere = Store(None)
    for module in (compiling, cpu_decoder):
        monkeypatch.setattr(module, "store", lambda: nowhere)
    note = model.compiling_note()
    assert "in every run: they cannot be kept (there is no home directory); set NUMBA_CACHE_DIR" in note
