"""SHIM"""
import numpy as np
from gpt2cli.inference.cpu.compiler.functions import inlined
from gpt2cli.inference.cpu.matrix import BLOCK_OUTPUTS, Matrix
from gpt2cli.inference.cpu.elementwise import GELU, ADD, gelu

@inlined
def largest_integer(matrix, width):
    if matrix.weights.dtype == np.int8:
        return min(32767, (2**31 - 1) // (127 * width))
    return 32767

@inlined
def put(y, r, o, v, epilogue):
    if epilogue == ADD:
        y[r, o] += v
    elif epilogue == GELU:
        y[r, o] = gelu(v)
    else:
        y[r, o] = v
@inlined
def weight(m, o, k):
    if m.weights.dtype == np.float32:
        return m.weights[o, k]
    if m.weights.dtype == np.uint16:
        return np.float32(m.weights[o].view(np.float16)[k])
    return np.float32(m.weights[o, k])

@inlined
def multiply_one_row(matrix, x, steps, y, epilogue, first, last):
    for o in range(first, last):
        s = np.float32(0)
        for k in range(x.shape[1]):
            s += x[0, k] * weight(matrix, o, k)
        if x.dtype == np.int16:
            s *= steps[0]
        put(y, 0, o, s * matrix.scale[o] + matrix.bias[o], epilogue)
@inlined
def multiply_few_rows(matrix, x, steps, y, epilogue, first, last):
    for r in range(len(x)):
        for o in range(first, last):
            s = np.float32(0)
            for k in range(x.shape[1]):
                s += x[r, k] * weight(matrix, o, k)
            if x.dtype == np.int16:
                s *= steps[r]
            put(y, r, o, s * matrix.scale[o] + matrix.bias[o], epilogue)
