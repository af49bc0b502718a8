"""Layer norm, and the rounding of activations for products of one row or few rows."""

from typing import Any

import numpy as np

from gpt2cli.inference.cpu import vector_math as vm
from gpt2cli.inference.cpu.compiler.emission import for_range
from gpt2cli.inference.cpu.compiler.functions import emitted, inlined
from gpt2cli.inference.cpu.compiler.values import IN_ORDER, REAL, Array, Value, convert
from gpt2cli.inference.cpu.llvm_simd import FLOAT, broadcast, index
from gpt2cli.inference.cpu.packed_layout import SMALLEST, WIDTH_MULTIPLE
from gpt2cli.inference.cpu.processor import LANES


@inlined
def layer_norm(x: Any, ln: Any, epsilon: float, out: Any, first: int, last: int) -> None:
    """Write the layer norm of rows `first` to `last` - 1 of x to `out` ("Layer Normalization", Ba et al. 2016).

    `ln` (2, C) is the weight and the bias. x and `out` are as wide as C rounded up to WIDTH_MULTIPLE, or wider; the
    numbers of `out` between C and that width become 0.
    """
    for r in range(first, last):
        normalize_row(x[r], ln[0], ln[1], np.float32(epsilon), out[r])


@emitted
def normalize_row(b: Any, row: Array, weights: Array, biases: Array, epsilon: Value, target: Array) -> None:
    """The layer norm of a row: see `layer_norm`. The sums are in several vectors, so that additions need not wait."""
    x, weight, bias, out = row.data, weights.data, biases.data, target.data
    C, step = weights.sizes[0], index(WIDTH_MULTIPLE)
    zeros = [vm.ZERO] * (WIDTH_MULTIPLE // LANES)

    def deviations(at: Any, mean: Any) -> list[Any]:
        """The numbers from `at` on less the mean, as vectors. Those beyond the end are 0."""
        places = [b.add(at, index(n)) for n in range(0, WIDTH_MULTIPLE, LANES)]
        numbers = ((place, b.fsub(vm.load(b, x, place), mean, flags=IN_ORDER)) for place in places)
        return [b.select(vm.in_range(b, place, C), number, vm.ZERO) for place, number in numbers]

    with vm.Loop(b, index(0), C, step, zeros) as loop:
        numbers = deviations(loop.at, vm.ZERO)
        loop.after([vm.add(b, total, number) for total, number in zip(loop.before, numbers, strict=True)])
    count = b.sitofp(C, FLOAT)
    mean = broadcast(b, b.fdiv(vm.total(b, loop.results), count, flags=IN_ORDER), LANES)
    with vm.Loop(b, index(0), C, step, zeros) as loop:
        numbers = deviations(loop.at, mean)
        loop.after([vm.multiply_add(b, n, n, total) for total, n in zip(loop.before, numbers, strict=True)])
    variance = vm.add(b, b.fdiv(vm.total(b, loop.results), count, flags=IN_ORDER), convert(b, epsilon, REAL).llvm)
    inverse = b.fdiv(vm.real(variance, 1), vm.call(b, "sqrt", variance), flags=IN_ORDER)
    inverse = broadcast(b, inverse, LANES)
    with for_range(b, index(0), C, WIDTH_MULTIPLE) as (start, _):
        for n, number in enumerate(deviations(start, mean)):
            at = b.add(start, index(n * LANES))
            factor, offset = (vm.load_until(b, array, at, C) for array in (weight, bias))
            vm.store(b, vm.multiply_add(b, vm.multiply(b, number, inverse), factor, offset), out, at)


@inlined
def round_rows(x: Any, largest: int, rows: Any, steps: Any) -> None:
    """Round each row of x (n, width), fp32, to integers up to `largest`: `rows` (n, width), int16.

    `steps` (n,), fp32, receives what one of these integers stands for. It is not finite if a number of the row is not.
    Rows whose numbers are all below SMALLEST become zeros.
    """
    bits = x.view(np.int32)
    for r in range(x.shape[0]):
        extreme = np.int32(0)  # absolute values compare as their bits do; infinity and NaN are the largest
        for c in range(x.shape[1]):
            extreme = max(extreme, bits[r, c] & np.int32(0x7FFFFFFF))
        steps.view(np.int32)[r] = extreme
        inverse = np.float32(0) if steps[r] < SMALLEST else np.float32(largest) / steps[r]
        steps[r] /= np.float32(largest)
        for c in range(x.shape[1]):
            rows[r, c] = np.int16(np.int32(np.rint(x[r, c] * inverse)))
