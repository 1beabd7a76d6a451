"""Parts are counted by themselves, with all that their ports carry."""

import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from halfdome.hdl.config import preset
from halfdome.hdl.parts import PARTS, count


class Products(wiring.Component):
    """Sums of pairs of products."""

    def __init__(self):
        pair = In(16).array(2)
        super().__init__({"a": pair, "b": pair, "first": Out(32), "o": Out(32)})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += [
            self.first.eq(self.a[0] * self.b[0]),
            self.o.eq(self.first + self.a[1] * self.b[1]),
        ]
        return m


def test_what_a_component_takes_is_counted():
    counted = count(Products)
    assert (counted["dsp"], counted["bram"]) == (2, 0)
    assert counted["ff"] == 2 * 32
    assert 32 <= counted["lut"] <= 40  # one adder, carry cells of two LUT4 each
    assert counted["bits"] == 0
    assert counted["gates"] > 2 * 16 * 16  # two arrays of full adders at the least


@pytest.mark.parametrize("name", PARTS)
def test_parts_are_components_of_every_card(name):
    config = preset("tiny").replace(gather_cache_bytes=4096)
    assert PARTS[name](config).signature.members
