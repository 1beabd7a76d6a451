"""The meaning of the vector engine's commands, bit for bit."""

import numpy as np
from numpy.typing import NDArray

from halfdome.hdl.commands import ElementFormat, Flag, Function, Opcode
from halfdome.sim.golden import floats, functions
from halfdome.sim.golden.floats import QUIET_NAN

_DTYPES = {
    ElementFormat.UINT8: np.uint8,
    ElementFormat.INT8: np.int8,
    ElementFormat.FLOAT16: np.float16,
    ElementFormat.FLOAT32: np.float32,
    ElementFormat.INT32: np.int32,
}
_PARTIAL_SUMS = 4
_MINUS_ZERO = np.float32(-0.0)


def float_of(bits: int) -> np.float32:
    """The float32 that a descriptor carries."""
    return np.uint32(bits).view(np.float32)


def decode(
    raw: NDArray[np.uint8], element: ElementFormat, zero_point: int = 0
) -> NDArray[np.float32]:
    """uint8[..., n * element.nbytes] to float32[..., n]: `q - zero_point` where q has 8 bits.

    `zero_point` is the byte as it stands in a descriptor: two's complement for INT8.
    """
    values = np.ascontiguousarray(raw).view(_DTYPES[element])
    if element.nbytes == 1:
        zero = np.uint8(zero_point).view(_DTYPES[element])
        return (values.astype(np.int32) - np.int32(zero)).astype(np.float32)
    with np.errstate(invalid="ignore"):  # a signalling NaN
        x = values.astype(np.float32)
    return np.where(np.isnan(x), QUIET_NAN, x)


def encode(
    x: NDArray[np.float32], element: ElementFormat, multiplier: np.float32, zero_point: int = 0
) -> NDArray[np.generic]:
    """`x * multiplier` as an array of the format, every step rounded to nearest, ties to even.

    8 bits: `saturate(round(x * multiplier) + zero_point)`, NaN counts as 0.
    """
    if element is ElementFormat.UINT8:
        return floats.quantise(x, multiplier, zero_point)
    if element is ElementFormat.INT8:
        return (floats.quantise(x, multiplier, zero_point ^ 0x80) ^ 0x80).view(np.int8)
    product = floats.multiply(x, multiplier)
    if element is ElementFormat.FLOAT32:
        return product
    with np.errstate(over="ignore", under="ignore"):
        narrow = product.astype(np.float16)
    return np.where(np.isnan(narrow), np.uint16(0x7E00).view(np.float16), narrow)


def divide(
    x: NDArray[np.float32], scale: np.float32, element: ElementFormat, zero_point: int = 0
) -> NDArray[np.generic]:
    """QUANTISE to 8 bits: `saturate(round(x / scale) + zero_point)`, NaN gives the least."""
    if element is ElementFormat.INT8:
        return (floats.quotient(x, scale, zero_point ^ 0x80) ^ 0x80).view(np.int8)
    return floats.quotient(x, scale, zero_point)


def quantise(
    x: NDArray[np.float32], multiplier: float | np.float32, zero_point: int
) -> NDArray[np.uint8]:
    """AFFINE from FLOAT32 to UINT8: uint8 of the shape of `x`.

    `saturate(round_half_even(x * multiplier) + zero_point)` where the product is rounded to
    float32, ties go to the even integer and NaN counts as 0. With `multiplier` = 1 / scale in
    float32 this is `torch.fake_quantize_per_tensor_affine` before it goes back to float32, and
    ONNX's QuantizeLinear for a scale that is a power of two (it divides by the scale).

    Raises `ValueError` if `x` is not float32, `multiplier` is zero or not finite or `zero_point`
    is not 0 to 255.
    """
    if x.dtype != np.float32:
        raise ValueError(f"x: dtype {x.dtype}, must be float32")
    if not np.isfinite(np.float32(multiplier)) or not multiplier:
        raise ValueError(f"multiplier={multiplier}: must be a finite float32, not zero")
    if not 0 <= zero_point <= 255:
        raise ValueError(f"zero_point={zero_point}: must be 0 to 255")
    return floats.quantise(x, np.float32(multiplier), zero_point)


def maximum(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """The larger of two, +0 above -0; NaN if either is."""
    larger = np.where(floats.add(a, b) == 0, np.where(np.signbit(a), b, a), np.maximum(a, b))
    return np.where(np.isnan(a) | np.isnan(b), QUIET_NAN, larger)


def reduce_rows(x: NDArray[np.float32], lanes: int, *, largest: bool) -> NDArray[np.float32]:
    """float32[rows, columns] to [rows, 1]: sums, or the `largest` elements.

    The order of a sum is that of the hardware: every `lanes` elements (`vector_lanes`) are added as
    a balanced tree of neighbours; the trees of a row are added to four partial sums in turn,
    s0 to s3; the sum is (s0 + s1) + (s2 + s3). What is absent counts as -0, which changes nothing.
    """
    combine, neutral = (maximum, np.float32(-np.inf)) if largest else (floats.add, _MINUS_ZERO)
    rows, columns = x.shape
    trees = -(-columns // (lanes * _PARTIAL_SUMS)) * _PARTIAL_SUMS
    padded = np.full((rows, trees * lanes), neutral, np.float32)
    padded[:, :columns] = x
    level = padded.reshape(rows, trees, lanes)
    while level.shape[2] > 1:
        level = combine(level[:, :, ::2], level[:, :, 1::2])
    partial = np.full((rows, _PARTIAL_SUMS), neutral, np.float32)
    for turn in level.reshape(rows, -1, _PARTIAL_SUMS).transpose(1, 0, 2):
        partial = combine(partial, turn)
    pairs = combine(partial[:, ::2], partial[:, 1::2])
    return combine(pairs[:, :1], pairs[:, 1:])


def lookup(a: NDArray[np.generic], table: NDArray[np.generic]) -> NDArray[np.generic]:
    """`table` at each byte of `a`, int8 as its two's complement: of the table's dtype.

    Both are 8 bits wide; the table has one entry for each of the 256 bytes.
    """
    return table[a.view(np.uint8)]


def combine(
    opcode: Opcode, v: dict[str, int], a: NDArray[np.float32], b: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """What a command makes of decoded inputs before its function; `v` holds its fields."""
    match opcode:
        case Opcode.AFFINE:
            return floats.fma(a, float_of(v["scale"]), float_of(v["shift"]))
        case Opcode.ADD:
            return floats.fma(b, float_of(v["scale"]), a)
        case Opcode.MULTIPLY:
            return floats.fma(a, b, float_of(v["shift"]))
        case _:
            low, high = (np.full_like(a, float_of(v[name])) for name in ("low", "high"))
            lifted = maximum(a, low)
            return np.where(np.isnan(lifted), QUIET_NAN, -maximum(-lifted, -high))


def result(
    opcode: Opcode, v: dict[str, int], a: NDArray[np.float32], b: NDArray[np.float32] | None,
    lanes: int,
) -> NDArray[np.generic]:  # fmt: skip
    """The output of a command: `v` holds its fields, a and b are decoded, b broadcasts."""
    if opcode is Opcode.QUANTISE:
        return divide(a, float_of(v["scale"]), ElementFormat(v["y_format"]), v["y_zero_point"])
    x = functions.apply(Function(v["function"]), combine(opcode, v, a, b))
    if v["flags"] & (Flag.SUM | Flag.MAX):
        x = reduce_rows(x, lanes, largest=bool(v["flags"] & Flag.MAX))
    multiplier = float_of(v["multiplier"])
    return encode(x, ElementFormat(v["y_format"]), multiplier, v["y_zero_point"])
