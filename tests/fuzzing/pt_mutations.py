"""Changes to a file of torch.save: to its tensors and values, to its pickle, and to the archive around them."""

import io
import random
import warnings
import zipfile
from typing import Any

import torch

from tests.fuzzing.mutations import change_member, cut, flip, overwrite


def change_pt(content: bytes, choose: random.Random) -> bytes:
    """A tensor or a value in a file of torch.save changes; its format stays."""
    saved = torch.load(io.BytesIO(content), weights_only=True)
    state = saved["model"]
    name = choose.choice(list(state))
    tensor, kind = state[name], choose.randrange(7)
    if kind == 0:
        shape = choose.choice((tensor.shape, (2**20, *tensor.shape), (2**31, 32), (2**16, 2**16)))
        state[name] = torch.zeros((), dtype=choose.choice((torch.float32, torch.bfloat16))).expand(shape)
    elif kind == 1:  # a whole model, perhaps a wide one
        times, one = choose.choice((1, 2**9)), torch.zeros(1, dtype=choose.choice((torch.float32, torch.bfloat16)))
        saved["model"] = {name: one.expand([size * times for size in tensor.shape]) for name, tensor in state.items()}
        saved["model_args"] = {"n_head": 2}
    elif kind == 2:
        types = (torch.complex64, torch.int8, torch.bool, torch.float64, torch.float8_e4m3fn, torch.uint16)
        state[name] = tensor.to(choose.choice(types))
    elif kind == 3:
        state[name] = choose.choice((tensor.t(), tensor[:0], tensor.to_sparse(), tensor.flatten()[::2], 7, None, "x"))
    elif kind == 4:
        change_member(saved, choose)
    elif kind == 5:
        for number in range(choose.choice((3, 1_000))):
            state[f"h.{number}.ln_1.weight"] = tensor
    else:
        key = choose.choice(("config", "model_args", "provenance", "template"))
        saved[key] = {"n_head": 2, choose.choice(("n_layer", "n_head", "model_type", "x")): _doubled(choose)}
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(saved, file, _use_new_zipfile_serialization=zipfile.is_zipfile(io.BytesIO(content)))
    return file.getvalue()


def _doubled(choose: random.Random) -> Any:
    """A value as long as 2^n references, or one that hashes in that time."""
    make = choose.choice((lambda x: [x, x], lambda x: (x, x), lambda x: {"a": x, "b": x}))
    value: Any = make("x")
    for _ in range(choose.choice((5, 12, 28))):
        value = make(value)
    return {value: 1} if isinstance(value, tuple) and choose.random() < 0.5 and _short(value) else value


def _short(value: tuple[Any, ...]) -> bool:
    """Whether this process can hash it, to put it into a dict."""
    depth = 0
    while isinstance(value, tuple):
        value, depth = value[0], depth + 1
    return depth < 16


def change_archive(content: bytes, choose: random.Random) -> bytes:
    """The archive around a pickle changes, or the pickle's bytes."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    kind, file = choose.randrange(6), io.BytesIO()
    if kind == 5:
        return content + content if choose.random() < 0.5 else b"PK\x03\x04" + bytes(100) + content
    compression = zipfile.ZIP_DEFLATED if kind == 0 else zipfile.ZIP_STORED
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", compression) as archive:
        warnings.simplefilter("ignore")
        for name, part in entries:
            if name.endswith("data.pkl"):
                part = _change_pickle(part, choose, kind)
            if kind != 4 or choose.random() < 0.9:
                archive.writestr(name, part)
        if kind == 3:
            archive.writestr(choose.choice(entries)[0], b"\x80\x02}.")
    return file.getvalue()


def change_pickles(content: bytes, choose: random.Random) -> bytes:
    """The bytes of the pickles at the beginning change, as torch.save wrote them before version 1.6."""
    length = choose.choice((100, 1_000, 5_000))
    return _change_pickle(content[:length], choose, choose.randrange(3)) + content[length:]


def _change_pickle(pickle: bytes, choose: random.Random, kind: int) -> bytes:
    if kind == 0:
        return pickle[:2] + b"N0" * choose.choice((100, 10**6, 10**7)) + pickle[2:]
    if kind == 1:
        return choose.choice((flip, overwrite, cut))(pickle, choose)
    if kind == 2:
        at, many = choose.randrange(2, len(pickle)), choose.choice((1, 100, 10**6))
        return (
            pickle[:at]
            + choose.choice((b"]", b"(", b"h\0", b"\x86", b"R", b"\x94", b"0", b"Nq\0")) * many
            + pickle[at:]
        )
    return pickle
