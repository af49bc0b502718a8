"""What cannot be compiled is refused with the function, the line and the reason, and never compiled wrongly."""

import numpy as np
import pytest

from gpt2cli.inference.cpu.compiler.functions import CompilationError, called, emitted, inlined
from tests.inference.cpu.running import run_compiled

N = 3


def refusal(function, *arguments):
    """The message for a function whose last line is wrong. It must name this line."""
    with pytest.raises(CompilationError) as caught:
        run_compiled(function, *arguments)
    code = function.__code__
    line = max(line for _, _, line in code.co_lines() if line)
    assert str(caught.value).startswith(f"{code.co_name}, test_misuse.py:{line}: "), caught.value
    return str(caught.value)


def a_list(x):
    x[0] = [1, 2][0]


def a_break(x):
    for _ in range(3):
        break


def a_with(x):
    with x:
        pass


def a_name_of_an_argument(x):
    x[0] = min(1, key=3)


def three_numbers(x):
    x[0] = 1 < x[1] < 3


def a_power(x):
    x[0] = x[1] ** 2


def a_remainder_of_floats(x):
    x[0] = x[1] % 2


def an_unknown_name(x):
    x[0] = nothing  # noqa: F821


def an_unknown_attribute(x):
    x[0] = x.length


def a_foreign_function(x):
    x[0] = np.sin(x[0])


def a_foreign_value(x):
    x[0] = "text"


def a_negative_place(x):
    x[0] = x[-1]


def a_part_from_the_end(x):
    x[0] = len(x[-2:])


def a_part_up_to_the_end(x):
    x[0] = len(x[:-1])


def a_place_that_is_a_fraction(x):
    x[0] = x[1.5]


def a_fraction_as_a_bound(x):
    for i in range(2.5):
        x[i] = 0


def a_constant_beyond_its_type(x):
    x[0] = x.view(np.uint32)[0] < -1


def an_array_of_another_type(x):
    y = x.view(np.int32)
    y = y.view(np.uint32)


def another_type(x):
    kind = np.int8
    kind = np.float32  # noqa: F841


def the_largest_of_one(x):
    x[0] = max(x)


def a_return_without_a_value(x):
    if x[0] > 0:
        return 1
    return


def too_many_places(x):
    x[0] = x[0, 1]


def a_step(x):
    part = x[::2]  # noqa: F841


def numbers_of_another_size(x):
    bits = x.view(np.int64)  # noqa: F841


def an_unknown_step(x):
    for i in range(0, 9, len(x)):
        x[i] = 0


def the_length_of_a_number(x):
    x[0] = len(x[0])


def an_operator(x):
    x[0] = ~len(x)


def an_object(x):
    x.data = 3


def a_number_as_a_condition(x):
    x[0] = len(x) or 1


def a_call_that_would_happen_twice(x):
    x[inner(x)] += 1


def too_few_parts(x):
    a, b = (1, 2, 3)  # noqa: F841


def two_kinds(x):
    y = x if x[0] > 0 else x[0]  # noqa: F841


def a_root_of_a_whole_number(x):
    x[0] = np.sqrt(len(x))


def a_sum_of_conditions(x):
    x[0] = (x[1] > 0) + (x[2] > 0)


def is_something(x):
    x[0] = x[1] is N


@inlined
def inner(x):
    return len(x)


@pytest.mark.parametrize(("function", "reason"), [
    (a_list, r"TypeError: [1, 2] cannot be compiled"),
    (a_break, "TypeError: break cannot be compiled"),
    (a_name_of_an_argument, "arguments have no names"),
    (three_numbers, "compare two values at a time"),
    (a_power, "Pow of float32 cannot be compiled"),
    (a_remainder_of_floats, "Mod of float32 cannot be compiled"),
    (an_unknown_name, "NameError: nothing has no value here"),
    (an_unknown_attribute, "no attribute 'length'"),
    (a_foreign_function, "<ufunc 'sin'> cannot be compiled"),
    (a_foreign_value, "'text' is no number"),
    (a_negative_place, "places count from the beginning of an array"),
    (a_part_from_the_end, "places count from the beginning of an array"),
    (a_part_up_to_the_end, "places count from the beginning of an array"),
    (a_place_that_is_a_fraction, "1.5 is no whole number"),
    (a_constant_beyond_its_type, "OverflowError: -1 is no uint32"),
    (an_array_of_another_type, "the variable is int32 where it is first assigned, not uint32"),
    (another_type, "the variable is <class 'numpy.int8'> where it is first assigned, not <class 'numpy.float32'>"),
    (the_largest_of_one, "max needs two numbers"),
    (a_return_without_a_value, "some returns have a value and others have none"),
    (too_many_places, "an array of 1 dimensions has no element with 2 places"),
    (a_step, "a part of an array has no step"),
    (numbers_of_another_size, "float32 and int64 have different sizes"),
    (the_length_of_a_number, "cannot be compiled"),
    (an_operator, "~len(x) cannot be compiled"),
    (an_object, "x.data cannot be assigned to"),
    (a_number_as_a_condition, "len(x) is no condition"),
    (a_call_that_would_happen_twice, "it would call the function twice"),
    (too_few_parts, "ValueError"),
    (a_root_of_a_whole_number, "sqrt of int64 cannot be compiled"),
    (a_sum_of_conditions, "Add of conditions cannot be compiled"),
    (two_kinds, "the two values have different types"),
    (is_something, "Is of float32 cannot be compiled"),
])  # fmt: skip
def test_the_message_names_function_line_and_reason(function, reason):
    assert reason in refusal(function, np.zeros(4, np.float32))


def refused(function, *arguments):
    with pytest.raises(CompilationError) as caught:
        run_compiled(function, *arguments)
    return str(caught.value)


def test_statements_that_would_change_their_meaning_are_refused():
    def an_else(x):
        for i in range(3):
            x[i] = 0
        else:
            x[0] = 1

    x = np.zeros(4, np.float32)
    assert "a loop with else" in refused(an_else, x)
    assert "with x:" in refused(a_with, x)
    assert "2.5 is no whole number" in refused(a_fraction_as_a_bound, x)
    assert "the step of a range must be known" in refused(an_unknown_step, x)


def test_a_variable_keeps_its_type():
    """A sum that begins with 0 would lose all fractions."""

    def total(x):
        n = 0
        for i in range(len(x)):
            n += x[i]
        x[0] = n

    x = np.ones(3, np.float32)

    def half(x):
        n = 1
        n = 0.5
        x[0] = n

    assert "cannot become 0.5" in refused(half, x)
    message = refused(total, x)
    assert "the variable is int64 where it is first assigned, and cannot become float32" in message
    assert f":{total.__code__.co_firstlineno + 3}" in message


def test_a_row_is_not_assigned_at_once():
    def clear(x):
        x[0] = 0

    assert "numbers are assigned one by one" in refused(clear, np.zeros((2, 2)))


def test_a_name_that_may_have_no_value_has_none():
    def after_branch(x):
        if x[0] > 0:
            n = 1
        x[1] = n

    def after_loop(x):
        for i in range(len(x)):
            last = i
        x[1] = last

    def outer_name(x):
        if x[0] > 0:
            N = 1
        x[1] = N  # in Python too, this is not the N outside

    for function in (after_branch, after_loop, outer_name):
        assert "has no value here" in refused(function, np.zeros(2))


def test_a_function_that_returns_a_value_always_does():
    @inlined
    def sometimes(x):
        if x[0] > 0:
            return 1

    @called
    def value_of_a_call(x):
        return x[0]

    def first(x):
        x[0] = sometimes(x)

    def second(x):
        x[0] = value_of_a_call(x)

    assert "not all ways return a value" in refused(first, np.zeros(1))
    assert "is not inlined and cannot return a value" in refused(second, np.zeros(1))


def test_a_called_function_is_compiled_for_each_type_of_a_constant():
    """1 and 1.0 are equal, but the quotient of whole numbers is another."""

    @called
    def divide(x, by):
        x[0] = len(x) + by if by == 1.0 else 0
        x[1] = 1 if type(by) is int else 2

    def use(x, y):
        divide(x, 1)
        divide(y, 1.0)

    x, y = np.zeros((2, 2), np.float32)
    run_compiled(use, x, y)
    assert (x[1], y[1]) == (1, 2)


def test_signs_without_a_common_type_are_refused():
    def add(x, y):
        x[0] = x[0] + y[0]

    assert "no type holds all numbers of uint64 and int64" in refused(add, np.zeros(1, np.uint64), np.zeros(1, int))


def test_the_callers_are_named():
    @emitted
    def broken(b, x):
        raise ValueError("this cannot be emitted")

    @inlined
    def third(x):
        broken(x)

    @called
    def second(x):
        third(x)

    def first(x):
        second(x)

    lines = refused(first, np.zeros(1)).splitlines()
    assert [line.split(", test_misuse.py:")[0] for line in lines] == [
        "third",
        "  called by second",
        "  called by first",
    ]
    assert lines[0].endswith("ValueError: this cannot be emitted")


def test_the_number_of_arguments_must_be_right():
    def use(x):
        inner(x, x)

    assert "inner takes 1 arguments, not 2" in refused(use, np.zeros(1))
