"""How large a card is, in LUT4 equivalents: a proxy that orders designs.

What each part costs was read off Yosys `synth_ecp5` for its units alone (`halfdome fpga`);
a multiplier block and a kilobit of block RAM count as the logic that would stand in their place.
"""

from halfdome.hdl.config import CardConfig

LUT4_PER_MAC = 22
"""A processing element of the systolic array, 360 LUT4 for 4x4; plus one 18x18 multiplier."""
LUT4_PER_REQUANTISER = 1265
"""One column: bias, `IntToFloat(32)` and `FloatToByte`."""
LUT4_PER_LANE = 2018
"""`FloatAdd` and `FloatFma` of one gather lane."""
DSP_PER_FLOAT_MULTIPLY = 4
"""18x18 multipliers of a 24x24 product."""
LUT4_PER_DSP = 250
"""An 18x18 multiplier made of LUTs, about 18*18 full adders less the first row, with registers."""
LUT4_PER_RAM_KBIT = 32
"""A 16x2 LUT RAM holds 32 bits, so 1024 / 32 of them."""


def area_lut4(config: CardConfig) -> int:
    """Area of the parts that grow with the configuration: array, requantisers, lanes, memories."""
    macs = config.array_rows * config.array_columns
    accumulator_kbit = config.accumulator_rows * config.array_columns * 32 / 1024
    activation_kbit = 2 * config.activation_rows * config.line_bytes * 8 / 1024
    scratchpad_kbit = config.scratchpad_bytes * 8 / 1024
    cache_kbit = config.gather_cache_bytes * 8 / 1024
    core = (
        macs * (LUT4_PER_MAC + LUT4_PER_DSP)
        + config.array_columns * (LUT4_PER_REQUANTISER + DSP_PER_FLOAT_MULTIPLY * LUT4_PER_DSP)
        + config.lanes * (LUT4_PER_LANE + DSP_PER_FLOAT_MULTIPLY * LUT4_PER_DSP)
        + (accumulator_kbit + activation_kbit + scratchpad_kbit + cache_kbit) * LUT4_PER_RAM_KBIT
    )
    return round(config.cores * core)
