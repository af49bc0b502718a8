"""The memory that a process can take."""

from gpt2cli.inference import free_memory
from gpt2cli.inference.free_memory import left_in, more_memory


def test_a_limit_of_a_control_group_counts(tmp_path):
    assert left_in(tmp_path) is None
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 100\n")
    for limit, usage in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        (tmp_path / usage).write_text("700\n")
        (tmp_path / limit).write_text("1000\n")
        assert left_in(tmp_path) == 400
        (tmp_path / limit).write_text("max\n" if limit == "memory.max" else f"{2**63 - 4096}\n")
        assert left_in(tmp_path) is None


def test_the_smallest_limit_is_what_is_free(tmp_path, monkeypatch):
    assert more_memory("cpu") > 2**20
    monkeypatch.setattr(free_memory, "_groups", lambda: [tmp_path])
    for name, text in (("memory.stat", ""), ("memory.max", "4096"), ("memory.current", "1024")):
        (tmp_path / name).write_text(text)
    assert more_memory("cpu") == 3072


def test_the_memory_of_an_unknown_device_is_not_known():
    assert more_memory("mps") is None
