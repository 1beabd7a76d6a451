"""What callers hand in is taken as it is meant, or refused by the argument's name."""

import enum
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.host import arguments

INTEGER_TYPES = (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64)
WRAPPINGS = (lambda x: x, np.array)
"""A scalar as it is, and as an array without dimensions."""


class Colour(enum.IntEnum):
    RED = 1
    GREEN = 2


class Way(enum.Enum):
    NONE = None
    UP = "up"


@given(
    value=st.integers(-(2**63), 2**63 - 1), kind=st.sampled_from((int, *INTEGER_TYPES)),
    wrapped=st.sampled_from(WRAPPINGS), low=st.integers(-200, 200), more=st.integers(0, 300),
)  # fmt: skip
def test_integers_of_any_kind_are_taken_within_their_range(value, kind, wrapped, low, more):
    limits = None if kind is int else np.iinfo(kind)
    value = value if limits is None else min(max(value, int(limits.min)), int(limits.max))
    given_ = wrapped(kind(value))
    if low <= value <= low + more:
        found = arguments.integer("size", given_, low, low + more)
        assert type(found) is int
        assert found == value
    else:
        expected = f"^size={value}: must be an integer from {low} to {low + more}$"
        with pytest.raises(ValueError, match=expected):
            arguments.integer("size", given_, low, low + more)


def test_an_integer_may_have_no_upper_end():
    assert arguments.integer("size", 10**30, 1) == 10**30
    with pytest.raises(ValueError, match=r"^size=0: must be an integer, 1 or more$"):
        arguments.integer("size", 0, 1)


NO_INTEGERS = (
    1.0, 1.5, np.float32(2), True, np.bool_(True), np.array(True), "1", None, [1], (1,),
    np.array([1]), np.array(1.0), 1 + 0j, b"1", math.nan,
)  # fmt: skip


@pytest.mark.parametrize("value", NO_INTEGERS, ids=repr)
def test_what_is_no_integer_is_refused_by_name(value):
    with pytest.raises(ValueError, match=r"^size=.*: must be an integer"):
        arguments.integer("size", value, 0, 9)


@given(
    value=st.floats(allow_nan=False, allow_infinity=False),
    kind=st.sampled_from([float, np.float64]), wrapped=st.sampled_from(WRAPPINGS),
)  # fmt: skip
def test_finite_numbers_are_taken(value, kind, wrapped):
    assert arguments.number("scale", wrapped(kind(value))) == value


@pytest.mark.parametrize("value", [3, np.int8(3), np.float16(3), np.array(3)])
def test_a_number_may_be_whole_or_narrow(value):
    found = arguments.number("scale", value)
    assert (type(found), found) == (float, 3.0)


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -np.float32(np.inf), np.array(np.nan), True, np.bool_(False), "1.0", None,
     [1.0], np.array([1.0]), 1 + 0j, 10**400],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
def test_what_is_no_finite_number_is_refused_by_name(value):
    with pytest.raises(ValueError, match=r"^scale=.*: must be a finite number$"):
        arguments.number("scale", value)


@pytest.mark.parametrize("value", [True, False, np.bool_(True), np.array(False)], ids=repr)
def test_flags_are_taken(value):
    assert arguments.flag("relu", value) is bool(value)


@pytest.mark.parametrize(
    "value", [0, 1, np.int8(1), None, "yes", [True], np.array([True])], ids=repr
)
def test_what_is_no_flag_is_refused_by_name(value):
    with pytest.raises(ValueError, match=r"^relu=.*: must be True or False$"):
        arguments.flag("relu", value)


@pytest.mark.parametrize("value", [(2, 3), [2, 3], np.array([2, 3], np.int8), (np.int64(2), 3)])
def test_one_integer_for_each_side(value):
    found = arguments.integers("stride", value, 2, 1, 255)
    assert found == (2, 3)
    assert {type(each) for each in found} == {int}


@pytest.mark.parametrize("value", [2, np.uint8(2), np.array(2)])
def test_one_integer_stands_for_all(value):
    assert arguments.integers("pads", value, 4, 0, 255) == (2, 2, 2, 2)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ((1.0, 1.0), r"stride\[0\]=1.0: must be an integer from 1 to 255"),
        ((1, 0), r"stride\[1\]=0: must be an integer from 1 to 255"),
        ((1, 2, 3), r"stride=\(1, 2, 3\): must be 2 integers, or one for all"),
        ((), r"stride=\(\): must be 2 integers"),
        (256, "stride=256: must be an integer from 1 to 255"),
        ("12", "stride='12': must be an integer or 2 integers"),
        (None, "stride=None: must be an integer or 2 integers"),
        (1.5, "stride=1.5: must be an integer or 2 integers"),
        ({1, 2}, "stride={1, 2}: must be an integer or 2 integers"),
        (b"12", "stride=b'12': must be an integer or 2 integers"),
        (np.array("1"), r"stride=array\('1'.*: must be an integer or 2 integers"),
        (np.array(1j), r"stride=array\(.*: must be an integer or 2 integers"),
        (np.ma.masked, "stride=masked: must be an integer or 2 integers"),
        (True, "stride=True: must be an integer from 1 to 255"),
        (np.array([[1, 2], [3, 4]]), r"stride\[0\]=array\(\[1, 2\]\): must be an integer"),
    ],
)
def test_sides_that_are_none_are_refused_by_name(value, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        arguments.integers("stride", value, 2, 1, 255)


@pytest.mark.parametrize(
    "value", [2, np.array(2), (2, 2), np.array([2, 2]), [2, 2, 2, 2]], ids=repr
)
def test_pads_may_be_one_two_or_four(value):
    assert arguments.pads(value) == (2, 2, 2, 2)


@pytest.mark.parametrize("value", [np.array(2.0), np.array("ab"), None, (1, 2, 3), [[1], [2]]])
def test_pads_that_are_none_are_refused_by_name(value):
    with pytest.raises(ValueError, match=r"^pads"):
        arguments.pads(value)


@pytest.mark.parametrize("value", ["green", "GREEN", "Green", 2, np.uint8(2), Colour.GREEN])
def test_a_choice_may_be_said_in_many_ways(value):
    assert arguments.choice("colour", value, Colour) is Colour.GREEN


def test_a_choice_may_be_by_a_value_that_is_no_number():
    assert arguments.choice("way", "up", Way) is Way.UP
    assert arguments.choice("way", None, Way) is Way.NONE


@pytest.mark.parametrize(
    "value",
    ["blue", 3, None, [1], np.array([1, 2]), np.array([1]), True, np.array(True), {}, 1.5],
    ids=repr,
)
def test_what_is_no_choice_is_refused_with_those_there_are(value):
    with pytest.raises(ValueError, match=r"^colour=.*: must be one of red, green$"):
        arguments.choice("colour", value, Colour)


@pytest.mark.parametrize("value", [np.uint8, "uint8", np.dtype(np.uint8), "B"])
def test_dtypes_are_taken_in_all_of_numpys_ways(value):
    assert arguments.dtype("dtype", value, (np.int8, np.uint8)) == np.uint8


@pytest.mark.parametrize("value", [np.int16, "float64", None, "bfloat16", 3, [1]], ids=repr)
def test_other_dtypes_are_refused(value):
    with pytest.raises(ValueError, match=r"^dtype=.*: must be int8 or uint8$"):
        arguments.dtype("dtype", value, (np.int8, np.uint8))


def test_arrays_are_contiguous_and_of_the_shape_asked_for():
    turned = np.arange(6, dtype=np.uint8).reshape(2, 3).T
    found = arguments.array("x", turned, (np.uint8, np.int8), (3, None))
    assert found.flags.c_contiguous
    assert (found == turned).all()


@pytest.mark.parametrize(
    ("value", "shape", "message"),
    [
        (np.zeros((2, 3)), (None, None), r"is float64\[2, 3\], must be uint8 with 2 dimensions"),
        (np.zeros(3, np.uint8), (None, None), r"is uint8\[3\], must be uint8 with 2 dimensions"),
        (np.zeros((), np.uint8), (None,), r"is uint8\[\], must be uint8 with 1 dimension"),
        (np.zeros((2, 3), np.uint8), (None, 4), r"is uint8\[2, 3\], must be uint8 of shape \[n, 4"),
        ([[1, 2], [3]], (None, None), "is no array, its rows differ in length"),
        ("text", (None,), "is <U4"),
        (None, (None,), "is object"),
    ],
)
def test_arrays_that_do_not_fit_are_described(value, shape, message):
    with pytest.raises(ValueError, match=f"^x: {message}"):
        arguments.array("x", value, (np.uint8,), shape)


def test_a_mask_is_refused_unless_it_masks_nothing():
    """What lies under a mask is no value."""
    found = arguments.plain("x", np.ma.masked_array([1, 2], mask=[False, False]))
    assert found.tolist() == [1, 2]
    with pytest.raises(ValueError, match=r"^x: has masked elements, fill them in with \.filled"):
        arguments.plain("x", np.ma.masked_array([1, 2], mask=[False, True]))


@pytest.mark.parametrize("kind", [TypeError, RuntimeError])
def test_what_refuses_to_be_an_array_is_named(kind):
    class Stubborn:
        def __array__(self, *_, **__):
            raise kind("lies elsewhere")

    with pytest.raises(ValueError, match=r"^x: lies elsewhere$"):
        arguments.plain("x", Stubborn())


def test_rows_may_be_fewer_but_not_more_than_announced():
    assert len(arguments.rows("x", np.zeros((2, 3), np.int8), np.int8, (4, 3))) == 2
    with pytest.raises(ValueError, match=r"^x: is int8\[5, 3\], must have at most 4 rows$"):
        arguments.rows("x", np.zeros((5, 3), np.int8), np.int8, (4, 3))
    with pytest.raises(ValueError, match=r"^x: is int8\[4, 2\], must be int8 of shape \[n, 3\]$"):
        arguments.rows("x", np.zeros((4, 2), np.int8), np.int8, (4, 3))
