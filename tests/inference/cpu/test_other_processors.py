"""The loops for processors that this one is not: with AVX2 they are run, for 64-bit ARM they are compiled."""

import platform
import subprocess
import sys

import pytest

from gpt2cli.inference.cpu.compiling import compile_loops
from gpt2cli.inference.cpu.processor import LANES, lanes
from gpt2cli.inference.decoder import PRECISIONS, has_kernels
from tests.inference.cpu.object_files import undefined_symbols
from tests.runner import clean_environment

pytestmark = pytest.mark.skipif(not has_kernels(), reason="no loops for this processor")
AVX2 = "+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt"
COMPILE = """
import sys
from gpt2cli.inference.cpu.compiling import compile_loops
from tests.inference.cpu.object_files import undefined_symbols, words
for precision in sys.argv[1:]:
    code = compile_loops(precision)
    converts = any(word & 0xBFFFFC00 == 0x0E217800 for word in words(code, ".text"))
    print(precision, *undefined_symbols(code), converts)
"""
"""For each precision: the functions that the loops call, and whether they use fcvtl, which converts fp16."""
RUN = """
import sys, pytest
from gpt2cli.inference.cpu.processor import LANES
assert LANES == 8
names = "(plain_model or rounded_weights or neighbours or draft or long_prompt) and not (fp32 or bf16)"
options = ["--noconftest", "-p", "no:cacheprovider", "-n", "0", "-k", names]
sys.exit(pytest.main([*options, "tests/inference/test_cpu_decoder.py"]))
"""


def run_as(program, *arguments, **environment):
    """The output of a program in a process that compiles for another processor."""
    command = [sys.executable, "-c", program, *arguments]
    environment = clean_environment() | environment
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_64_bit_arm_needs_no_helper_functions():
    """Such as __extendhfsf2, which converts fp16 where a processor cannot. `fcvtl` does it on ARM."""
    target = {"GPT2CLI_CPU_TRIPLE": "aarch64-unknown-linux-gnu", "GPT2CLI_CPU_FEATURES": "+neon,+fp-armv8"}
    found = run_as(COMPILE, *PRECISIONS, **target)
    assert found == [f"{precision} syscall {precision != 'fp32'}" for precision in PRECISIONS]


def test_this_processor_needs_none_either():
    if sys.platform == "linux":
        assert all(undefined_symbols(compile_loops(precision)) == {"syscall"} for precision in PRECISIONS)


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64") or LANES == 8, reason="needs AVX-512")
def test_the_laws_hold_with_vectors_of_eight_numbers():
    run_as(RUN, GPT2CLI_CPU_FEATURES=AVX2)


def test_vectors_have_sixteen_numbers_only_with_all_of_avx512_that_the_loops_use():
    whole = {"avx2", "avx512f", "avx512bw", "avx512dq", "avx512vl"}
    assert lanes(whole) == 16
    assert lanes(whole - {"avx512bw"}) == lanes({"avx2"}) == lanes({"neon"}) == 8
