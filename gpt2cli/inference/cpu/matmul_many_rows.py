from gpt2cli.inference.cpu.compiler.functions import inlined
from gpt2cli.inference.cpu.matmul import multiply_few_rows, largest_integer
from gpt2cli.inference.cpu.elementwise import round_rows
import numpy as np
@inlined
def steps_per_row(width):
    return 1
@inlined
def prepare_rows(matrix, x, rows, steps, first, last):
    if matrix.weights.dtype == np.int8 or matrix.weights.dtype == np.uint8:
        round_rows(x[first:last], largest_integer(matrix, x.shape[1]), rows[first:last], steps.reshape(len(rows))[first:last])
@inlined
def multiply_many_rows(matrix, rows, steps, y, epilogue, first, last, own):
    multiply_few_rows(matrix, rows, steps.reshape(len(rows)), y, epilogue, first, last)
