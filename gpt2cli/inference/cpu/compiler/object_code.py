"""From LLVM's language to machine code, and from machine code to functions that ctypes calls."""

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from itertools import count
from typing import Any

from llvmlite import binding

from gpt2cli.inference.cpu.processor import FEATURES, NAME, TRIPLE

Loop = Callable[..., None]
"""A compiled function of whole numbers."""


def compile_module(text: str) -> bytes:
    """An object file with the machine code of a module in LLVM's language, for this processor."""
    machine = target_machine()
    code: bytes = machine.emit_object(optimized(text, machine))
    return code


def optimized(text: str, machine: Any) -> Any:
    """A module in LLVM's language, in the form from which the machine's instructions are made."""
    module = binding.parse_assembly(text)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    module.verify()
    options = binding.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = True
    passes = binding.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)
    return module


def link(code: bytes, names: Sequence[str], parameters: int) -> list[Loop]:
    """The functions of these names in an object file, which take this number of int64. Raises RuntimeError."""
    library = binding.JITLibraryBuilder().add_object_img(code).add_current_process()
    for name in names:
        library.export_symbol(name)
    tracker = library.link(_linker(), f"loops.{next(_numbers)}")
    _trackers.append(tracker)
    kind = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * parameters)
    return [kind(tracker[name]) for name in names]


_numbers = count()
_trackers: list[Any] = []
"""They keep the machine code in memory."""


@cache
def _linker() -> Any:
    """LLVM's linker for code in memory."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding.create_lljit_compiler()


@cache
def target_machine() -> Any:
    """The processor that modules are compiled for, to LLVM."""
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    features = ",".join(f"+{feature}" for feature in sorted(FEATURES))
    target = binding.Target.from_triple(TRIPLE)
    return target.create_target_machine(cpu=NAME, features=features, opt=3, reloc="pic", codemodel="small")
