"""Binary floating-point formats and how to read their fields.

IEEE 754-2019, section 3.4: one sign bit, a biased exponent, the stored fraction of the significand.
"""

from dataclasses import dataclass

from amaranth import Cat, Value
from amaranth.lib import data


class FloatView(data.View):
    """A floating-point number in hardware: its fields, and what they mean."""

    @property
    def magnitude(self) -> Value:
        """Everything but the sign; ordered as the numbers are (NaN excepted)."""
        return Value.cast(self)[:-1]

    @property
    def significand(self) -> Value:
        """The fraction with its leading bit, which is 0 for zero and subnormal numbers."""
        return Cat(self.fraction, self.exponent.any())

    @property
    def scale(self) -> Value:
        """The biased exponent; 1 for zero and subnormal numbers, whose leading bit is 0."""
        return Cat(self.exponent[0] | ~self.exponent.any(), self.exponent[1:])

    @property
    def is_zero(self) -> Value:
        return ~self.magnitude.any()

    @property
    def is_infinite(self) -> Value:
        return self.exponent.all() & ~self.fraction.any()

    @property
    def is_nan(self) -> Value:
        return self.exponent.all() & self.fraction.any()


class _FloatLayout(data.StructLayout):
    def __call__(self, value):
        return FloatView(self, value)


@dataclass(frozen=True)
class FloatFormat:
    """A binary interchange format. Raises `ValueError` if a field is too narrow to be one."""

    exponent_bits: int
    """Bits of the biased exponent."""
    significand_bits: int
    """Stored fraction bits; the leading bit of the significand is implied and not counted."""

    def __post_init__(self) -> None:
        for name, low, high in (("exponent_bits", 2, 15), ("significand_bits", 2, 112)):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f"{name}={value!r}: must be an integer from {low} to {high}")

    @property
    def width(self) -> int:
        """Bits of a number."""
        return 1 + self.exponent_bits + self.significand_bits

    @property
    def precision(self) -> int:
        """Bits of the significand with its leading bit."""
        return self.significand_bits + 1

    @property
    def bias(self) -> int:
        """What a stored exponent exceeds the real one by."""
        return (1 << self.exponent_bits - 1) - 1

    @property
    def infinity(self) -> int:
        """Bits of positive infinity."""
        return ((1 << self.exponent_bits) - 1) << self.significand_bits

    @property
    def quiet_nan(self) -> int:
        """Bits of the canonical quiet NaN: positive, only the top fraction bit set."""
        return self.infinity | 1 << self.significand_bits - 1

    @property
    def layout(self) -> data.StructLayout:
        """The fields from the least significant bit up; its views are `FloatView`."""
        return _FloatLayout(
            {"fraction": self.significand_bits, "exponent": self.exponent_bits, "sign": 1}
        )


FLOAT16 = FloatFormat(exponent_bits=5, significand_bits=10)
"""IEEE 754 binary16."""

FLOAT32 = FloatFormat(exponent_bits=8, significand_bits=23)
"""IEEE 754 binary32."""
