"""A small compiler: functions in a part of Python become machine code for this processor, by LLVM.

The part: numbers, contiguous arrays, tuples of these; assignments, `for` over `range` or over a tuple of constants,
`while`, `if`, conditional expressions, and calls. Nothing allocates memory or checks bounds, and places count from the
beginning. What would mean something else than in Python is refused, with these exceptions:

    types     as NumPy's, but known fractions and quotients of whole numbers are fp32, and a whole number takes the
              type of a float beside it. Integers wrap around; int64 must not overflow
    rounding  a product and a sum may be rounded once
    branches  `and`, `or` and conditional expressions compute all their parts

What is known during compilation (constants, types, shapes of tuples) is computed then, and a branch whose condition is
known costs nothing. Where Python's operations are not enough, a function decorated with `@emitted` writes LLVM's
instructions itself.

Numba does this for all of Python, but takes ten times as long for these loops, and a third of a second to import.
"""
