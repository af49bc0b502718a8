from gpt2cli.inference.cpu.compiler.functions import inlined
from gpt2cli.inference.cpu.matmul import multiply_few_rows
@inlined
def steps_per_row(width):
    return 1
@inlined
def prepare_rows(matrix, x, rows, steps, first, last):
    pass
@inlined
def multiply_many_rows(matrix, rows, steps, y, epilogue, first, last, own):
    multiply_few_rows(matrix, rows, steps.reshape(len(rows)), y, epilogue, first, last)
