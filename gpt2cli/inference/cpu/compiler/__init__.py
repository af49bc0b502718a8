"""A small compiler: functions in a part of Python become machine code for this processor, by LLVM.

The part: numbers, contiguous arrays, tuples of these; assignments, `for` over `range` or over a tuple of constants,
`while`, `if`, conditional expressions, and calls. Types are those of NumPy; nothing allocates memory or checks bounds.
What is known during compilation (constants, types, shapes of tuples) is computed then, and a branch whose condition is
known costs nothing. Where Python's operations are not enough, a function decorated with `@emitted` writes LLVM's
instructions itself.

Numba does this for all of Python, but takes ten times as long for these loops, and a third of a second to import.
"""
