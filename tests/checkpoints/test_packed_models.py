"""A packed model is read back as it was made, from the files that it was made of, and from no others."""

import dataclasses
import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import platformdirs
import pytest
from filelock import FileLock

from gpt2cli import background
from gpt2cli.checkpoints import packed_directory, packed_file, packed_models
from gpt2cli.checkpoints.packed_directory import LOCK, Kept, directory_for
from gpt2cli.checkpoints.packed_models import open_or_pack
from gpt2cli.config import GPTConfig
from gpt2cli.errors import CheckpointError
from gpt2cli.inference.cpu import huge_pages
from gpt2cli.model.origin import Origin
from gpt2cli.progress import Note
from tests.runner import PATIENCE, clean_environment
from tests.weights import CONFIG, Weights

ORIGIN = Origin(template={"prompt": "Q: {instruction}\nA:"}, is_conversational=True, other_tokenizer="it has 3 tokens")
AS_ROOT = os.name == "nt" or os.geteuid() == 0
posix = pytest.mark.skipif(os.name == "nt", reason="permissions and signals of POSIX")

CHILD = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from gpt2cli.checkpoints import packed_directory
from gpt2cli.checkpoints.packed_models import open_or_pack
from gpt2cli.model.origin import Origin
def read(progress):
    from tests.weights import CONFIG, Weights
    return SimpleNamespace(config=CONFIG, weights=Weights(CONFIG), origin=Origin())
"""


class Model:
    """A model in files that the tests change. Counts how often it is read."""

    def __init__(self, directory: Path, origin: Origin = ORIGIN, config: GPTConfig = CONFIG) -> None:
        self.sources = [directory / "model.pt", directory / "config.json"]
        directory.mkdir(parents=True, exist_ok=True)
        self.sources[0].write_bytes(bytes(300_000))
        self.sources[1].write_text("{}")
        self.origin, self.config = origin, config
        self.read, self.seed, self.heard = 0, 0, []

    def open(self, precision="int8", home=None):
        def read(progress):
            self.read += 1
            progress(Note("it has 3 heads"))
            return SimpleNamespace(config=self.config, weights=Weights(self.config, self.seed), origin=self.origin)

        self.heard = []
        try:
            return open_or_pack(self.sources, precision, read, home, lambda event: self.heard.append(event.text))
        finally:
            background.finish()

    def is_kept(self, precision="int8", home=None):
        """Whether the model is opened without being read, with the weights that it has now."""
        before = self.read
        found = self.open(precision, home)
        if self.read > before:
            return False
        stored = SimpleNamespace(config=self.config, weights=Weights(self.config, self.seed), origin=self.origin)
        expected = packed_models.pack(stored, found.precision)
        assert (found.config, found.origin, found.precision) == (expected.config, expected.origin, expected.precision)
        assert list(found.arrays) == list(expected.arrays)
        for name, array in found.arrays.items():
            assert array.dtype == expected.arrays[name].dtype and np.array_equal(array, expected.arrays[name]), name
            assert array.ctypes.data % 64 == 0 and array.flags.c_contiguous
        return True


@pytest.fixture
def packed(home):
    return home / "packed"


@pytest.fixture
def model(home, tmp_path):
    return Model(tmp_path / "m")


def kept_files(directory):
    return sorted(path.name for path in directory.glob("[!.]*")) if directory.exists() else []


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8", "int4", "auto"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_second_time_it_is_opened_without_its_source(home, tmp_path, precision, tied):
    model = Model(tmp_path / "m", config=dataclasses.replace(CONFIG, tied=tied, n_embd=96))
    assert model.open(precision).precision == ("fp16" if precision == "auto" else precision)
    assert model.is_kept(precision)
    assert model.heard == ["it has 3 heads"]  # as when it was read


def test_auto_is_what_the_stored_type_says_and_shares_the_file(home, tmp_path, packed):
    for stored, means, other in (("fp32", "fp16", "int8"), ("int4", "int8", "fp16")):
        model = Model(tmp_path / stored, dataclasses.replace(ORIGIN, precision=stored))
        model.open(other)
        assert model.open("auto").precision == means
        assert model.is_kept("auto") and model.is_kept(means) and model.is_kept(other)
    assert len(kept_files(packed)) == 4


def test_a_downloaded_model_keeps_it_in_its_directory(model, tmp_path, packed):
    entry = tmp_path / "models/o--n/main"
    entry.mkdir(parents=True)
    model.open("int8", entry)
    assert model.is_kept("int8", entry)
    assert len(kept_files(entry / "packed")) == 1 and not packed.exists()
    shutil.rmtree(entry)
    entry.mkdir()
    assert not model.is_kept("int8", entry)


def test_neither_torch_nor_llvm_is_imported_for_a_pt_file_that_was_packed(model):
    model.open("int8")
    code = (
        CHILD
        + f"""
found = open_or_pack([Path(name) for name in {list(map(str, model.sources))}], "int8", None)
assert found.origin.template["prompt"].startswith("Q:")
print(sorted({{"torch", "llvmlite", "asyncio"}} & set(sys.modules)), len(found.arrays))
"""
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean_environment())
    assert done.stdout == f"[] {len(model.open('int8').arrays)}\n", done.stderr


def rewrite_header(file, change):
    """Change the header of a packed model, with a digest that fits."""
    content = file.read_bytes()
    _, length, _ = packed_file._PREFIX.unpack(content[: packed_file._PREFIX.size])
    start = packed_file._PREFIX.size
    header = json.loads(content[start : start + length])
    change(header)
    new = json.dumps(header).encode()
    prefix = packed_file._PREFIX.pack(packed_file.MAGIC, len(new), hashlib.sha256(new).digest())
    page = packed_file._data_start(length)
    assert page == packed_file._data_start(len(new))
    file.write_bytes((prefix + new).ljust(page, b"\0") + content[page:])


def flip(file, at):
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


HEADERS = {
    "another format": lambda header: header.update(format=99),
    "another layout": lambda header: header.update(layout=0),
    "another version of gpt2cli": lambda header: header.update(gpt2cli="0.0.1"),
    "no version": lambda header: header.pop("layout"),
    "another shape": lambda header: header["config"].update(block_size=11),
    "an impossible shape": lambda header: header["config"].update(n_head=5),
    "a wrong shape of an array": lambda header: header["arrays"][0].__setitem__(2, [3, 48]),
    "an array less": lambda header: header["arrays"].pop(),
    "another precision": lambda header: header.update(precision="fp32"),
    "a precision that is none": lambda header: header.update(precision="int3"),
    "a fact less": lambda header: header["origin"].pop("template"),
    "a fact more": lambda header: header["config"].update(n_experts=2),
    "no table": lambda header: header.update(config=[1]),
    "other sources": lambda header: header["sources"].pop(),
}
DAMAGES = {
    "empty": lambda file: file.write_bytes(b""),
    "a few bytes": lambda file: file.write_bytes(file.read_bytes()[:20]),
    "truncated in the header": lambda file: file.write_bytes(file.read_bytes()[:100]),
    "truncated in the arrays": lambda file: file.write_bytes(file.read_bytes()[:-1000]),
    "too long": lambda file: file.write_bytes(file.read_bytes() + b"x"),
    "another kind of file": lambda file: file.write_bytes(b"x" * 10**5),
    "a flipped bit in the length": lambda file: flip(file, 11),
    "a flipped bit in the header": lambda file: flip(file, 100),
    "a flipped bit in the first array": lambda file: flip(file, 3 * packed_file.PAGE),
    "a flipped bit in the last array": lambda file: flip(file, -100),
} | {name: lambda file, change=change: rewrite_header(file, change) for name, change in HEADERS.items()}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_file_is_replaced(model, packed, damage):
    model.open()
    [name] = kept_files(packed)
    damage(packed / name)
    assert not model.is_kept()
    assert model.heard == ["it has 3 heads"]
    assert model.is_kept()
    assert kept_files(packed) == [name]


def test_a_file_that_ends_while_it_is_read_is_read_from_its_source(model, monkeypatch):
    monkeypatch.setattr(packed_file, "READ_SIZE", 10_000)  # so that several threads read
    model.open()
    assert model.is_kept()
    monkeypatch.setattr(os, "preadv", lambda *args: 0, raising=False)
    assert not model.is_kept()


@pytest.mark.parametrize("part", [0, 2])
def test_a_mapped_file_and_one_that_is_read_have_the_same_arrays(model, monkeypatch, part):
    monkeypatch.setattr(huge_pages, "LARGE_PART", part)
    model.open()
    assert model.is_kept()
    array = model.open().arrays["wte.weights"]
    assert not array.flags.writeable
    owner = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if sys.platform == "linux":
        length = len(owner.obj if isinstance(owner, memoryview) else owner)
        assert (length >= huge_pages.RESERVATION) == (part == 2)


def test_a_mapped_file_stays_as_it_was_when_it_is_replaced(model, packed, monkeypatch):
    monkeypatch.setattr(huge_pages, "LARGE_PART", 0)
    model.open()
    found = model.open()
    before = {name: array.copy() for name, array in found.arrays.items()}
    model.seed = 1
    touched(model.sources[0])
    model.open()
    packed_directory.remove_packed()
    assert all(np.array_equal(array, before[name]) for name, array in found.arrays.items())


@pytest.mark.parametrize("block", [4096, 10_000])
def test_blocks_end_at_multiples_of_their_size_and_are_the_same_bytes(model, packed, monkeypatch, block):
    model.open()
    [name] = kept_files(packed)
    whole = (packed / name).read_bytes()
    (packed / name).unlink()
    monkeypatch.setattr(packed_file, "BLOCK", block)
    model.open()
    assert (packed / name).read_bytes() == whole
    parts = [memoryview(bytes(range(n))) for n in (0, 5, 200, 3)]
    monkeypatch.setattr(packed_file, "BLOCK", 16)
    blocks = [bytes(found) for found in packed_file._blocks(20, iter(parts))]
    assert [len(found) for found in blocks] == [12, *[16] * 12, 4]
    assert b"".join(blocks) == b"".join(parts)


def test_a_model_is_there_before_it_is_written(model, packed, monkeypatch):
    write = threading.Event()
    monkeypatch.setattr(packed_directory, "sync_file", lambda path: write.wait(PATIENCE))
    monkeypatch.setattr(background, "finish", lambda: None)
    assert model.open().config == CONFIG
    assert not list(packed.glob("*.packed"))
    write.set()
    monkeypatch.undo()


@posix
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_model_is_written_ends_the_command_and_leaves_nothing(home, packed, signum):
    code = """
import time
from gpt2cli import __main__
from gpt2cli.checkpoints import packed_file
blocks = packed_file._blocks
def slow_blocks(*args):
    for block in blocks(*args):
        for _ in range(100_000):
            time.sleep(0.01)
            yield block[:0]
packed_file._blocks = slow_blocks
__main__.main()
"""
    command = [sys.executable, "-c", code, "generate", "hello", "--model", "tiny", "-n", "1"]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment()
    )
    assert child.stdout.readline().startswith("hello")
    deadline = time.monotonic() + PATIENCE
    while not list(packed.glob("*.tmp")) and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signum)
    _, problems = child.communicate(timeout=PATIENCE)
    assert (child.returncode, kept_files(packed)) == (128 + signum, [])
    assert "Traceback" not in problems


def touched(path):
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def rewritten(path, content):
    """Another content, with the same time of modification."""
    before = path.stat().st_mtime_ns
    path.write_bytes(content)
    os.utime(path, ns=(before, before))


CHANGES = {
    "time": lambda path: touched(path),
    "size": lambda path: rewritten(path, bytes(300_001)),
    "beginning": lambda path: rewritten(path, b"x" + bytes(299_999)),
    "end": lambda path: rewritten(path, bytes(299_999) + b"x"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_source_that_changed_is_read_again_and_replaces_what_was_kept(model, packed, change):
    model.open()
    model.seed = 1
    change(model.sources[0])
    assert not model.is_kept()
    assert model.is_kept()
    assert len(kept_files(packed)) == 1


def test_other_sources_are_another_model(model, packed):
    model.open()
    model.sources.pop()
    assert not model.is_kept()
    assert len(kept_files(packed)) == 2


def test_a_model_that_is_refused_leaves_no_file(model, home):
    def refuse(progress):
        raise CheckpointError("another tokenizer")

    with pytest.raises(CheckpointError, match="another tokenizer"):
        open_or_pack(model.sources, "int8", refuse)
    assert not any(path.is_file() for path in home.rglob("*"))


def test_a_source_that_changes_while_it_is_read_is_not_kept(model, packed, monkeypatch):
    def changing(self, name):
        touched(model.sources[0])

    monkeypatch.setattr(Weights, "release", changing)
    model.open()
    assert kept_files(packed) == []


def test_sources_that_are_not_there_are_the_readers_problem(model, packed):
    model.sources[1].unlink()
    assert model.open().config == CONFIG
    assert kept_files(packed) == []


@posix
def test_a_full_disk_costs_a_note(model, packed):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        assert model.open().config == CONFIG
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert model.heard == [
        "it has 3 heads",
        f"the packed weights are not kept: cannot write to {packed} (File too large)",
    ]
    assert kept_files(packed) == []
    model.open()
    assert model.is_kept()


@posix
def test_on_a_read_only_disk_what_was_kept_is_used_and_nothing_is_written(model, packed, monkeypatch):
    model.open("int8")
    real, names = os.open, kept_files(packed)

    def read_only(path, flags, *args, **keywords):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fspath(path))
        return real(path, flags, *args, **keywords)

    def refuse(*args, **keywords):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", read_only)
    monkeypatch.setattr(os, "utime", refuse)
    assert model.is_kept("int8")
    assert model.open("fp16").precision == "fp16"
    assert model.heard == ["it has 3 heads"]
    assert kept_files(packed) == names
    monkeypatch.setattr(os, "mkdir", refuse)
    shutil.rmtree(packed)
    assert model.open("int8").config == CONFIG


@pytest.mark.skipif(AS_ROOT, reason="root may write everywhere")
def test_a_directory_without_the_permission_to_write(model, packed):
    model.open("int8")
    packed.chmod(0o500)
    assert model.is_kept("int8") and not model.is_kept("fp16")
    packed.chmod(0o700)


def test_without_a_home_nothing_is_kept(model, monkeypatch):
    def unknown(*args, **keywords):
        raise RuntimeError("no home")

    monkeypatch.delenv("GPT2CLI_HOME")
    monkeypatch.setattr(platformdirs, "user_cache_dir", unknown)
    assert model.open().config == CONFIG
    assert model.heard == ["it has 3 heads"]


@posix
def test_what_others_can_write_to_is_not_used(model, packed, tmp_path):
    model.open()
    [name] = kept_files(packed)
    (packed / name).chmod(0o620)
    assert not model.is_kept()
    assert model.is_kept()  # the file was replaced
    packed.chmod(0o770)
    assert not model.is_kept()
    packed.chmod(0o700)
    (packed / name).rename(tmp_path / "elsewhere")
    (packed / name).symlink_to(tmp_path / "elsewhere")
    assert not model.is_kept()


@posix
def test_the_files_are_private_whatever_the_umask(model, packed):
    before = os.umask(0)
    try:
        model.open()
    finally:
        os.umask(before)
    assert model.is_kept()
    assert {path.stat().st_mode & 0o077 for path in (packed, *packed.glob("*.packed"))} == {0}


@posix
def test_beside_a_model_that_others_can_write_to_the_users_directory_is_used(model, packed, tmp_path):
    entry = tmp_path / "shared"
    (entry / "packed").mkdir(parents=True)
    (entry / "packed").chmod(0o777)
    assert directory_for(entry) == Kept(packed, packed_directory.LIMIT)


def test_while_another_process_packs_the_run_goes_on_without(model, packed):
    packed.mkdir(parents=True, mode=0o700)
    with FileLock(packed / LOCK):
        assert model.open().config == CONFIG
        assert kept_files(packed) == []
    model.open()
    assert model.is_kept()


def test_two_processes_at_once_keep_one_file(model, packed):
    code = (
        CHILD
        + f"""
deadline = float(sys.argv[1])
time.sleep(max(0, deadline - time.time()))
found = open_or_pack([Path(name) for name in {list(map(str, model.sources))}], "int8", read)
print(len(found.arrays))
"""
    )
    start = str(time.time() + 1)
    command = [sys.executable, "-c", code, start]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=clean_environment()) for _ in range(2)]
    assert len({process.communicate(timeout=PATIENCE)[0] for process in both}) == 1
    assert [process.returncode for process in both] == [0, 0]
    assert len(kept_files(packed)) == 1
    model.origin = Origin()
    assert model.is_kept()


@posix
def test_what_a_killed_process_left_is_swept_by_the_next(model, packed):
    code = (
        CHILD
        + f"""
def stop(path):
    print("written", flush=True)
    time.sleep({PATIENCE})
packed_directory.sync_file = stop
open_or_pack([Path(name) for name in {list(map(str, model.sources))}], "int8", read)
"""
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=clean_environment())
    assert child.stdout.readline() == "written\n"
    assert not model.is_kept()  # it goes on without
    child.send_signal(signal.SIGKILL)
    child.communicate()
    [left] = kept_files(packed)
    assert left.endswith(".tmp")
    model.open()
    assert left not in kept_files(packed)
    assert model.is_kept()


def test_what_was_not_used_for_the_longest_time_is_deleted_first(home, tmp_path, packed, monkeypatch):
    models = [Model(tmp_path / name) for name in "abcd"]
    for number, model in enumerate(models[:3]):
        model.open()
        for path in packed.glob("*.packed"):
            if path.stat().st_mtime > 1000:
                os.utime(path, (number, number))
    assert models[0].is_kept()  # now the second was not used for the longest time
    size = max(path.stat().st_size for path in packed.glob("*.packed"))
    monkeypatch.setattr(packed_directory, "LIMIT", 3 * size)
    models[3].open()
    assert [model.is_kept() for model in (models[0], models[2], models[3])] == [True, True, True]
    assert len(kept_files(packed)) == 3
    monkeypatch.setattr(packed_directory, "LIMIT", size // 2)
    assert not models[1].is_kept()
    assert len(kept_files(packed)) == 3  # nothing is deleted for a file that is not kept


def test_nothing_larger_than_half_of_the_free_disk_is_kept(model, packed, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 100_000))
    model.open()
    assert model.heard == ["it has 3 heads"]
    assert kept_files(packed) == []
