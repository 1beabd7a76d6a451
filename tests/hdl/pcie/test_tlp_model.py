"""The plain-Python packets and the hardware's header layouts agree with hand-worked headers."""

import pytest

from halfdome.hdl.config import PRESETS
from halfdome.hdl.pcie.tlp import CompletionHeader, RequestHeader
from tests.hdl.pcie.tlp_model import CPLD, MRD32, MWR64, Tlp, completions, memory_request

HEADERS = [
    (
        Tlp(kind=MRD32, length=1, tag=0x5A, requester=0x0102, address=0x12345678, first_be=0xF),
        "00000001 01025a0f 12345678",
        (RequestHeader, {"length": 1, "tag": 0x5A, "first_be": 15, "address_high": 0x12345678}),
    ),
    (
        Tlp(
            kind=MWR64, length=1024, tag=3, address=0x1_0000_0040, first_be=0xE, last_be=0x3,
            attributes=2, traffic_class=5, poisoned=True,
        ),
        "60506000 0000033e 00000001 00000040",
        (
            RequestHeader,
            {
                "type": 0x60, "length": 0, "last_be": 3, "address_high": 1, "address_low": 0x40,
                "attributes": 2, "traffic_class": 5, "poisoned": 1, "digest": 0,
            },
        ),
    ),
    (
        Tlp(
            kind=CPLD, length=16, tag=0xC3, requester=0xABCD, completer=0x0807, status=4,
            byte_count=4096, lower_address=0x7C,
        ),
        "4a000010 08078000 abcdc37c",
        (
            CompletionHeader,
            {
                "byte_count": 0, "status": 4, "completer_id": 0x0807, "requester_id": 0xABCD,
                "tag": 0xC3, "lower_address": 0x7C, "length": 16,
            },
        ),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("tlp", "header", "layout"), HEADERS)
def test_headers_match_the_specification(tlp, header, layout):
    assert tlp.header() == bytes.fromhex(header)
    parsed = Tlp.parse(tlp.header().ljust(16, b"\0"), b"")
    assert parsed == tlp
    struct, fields = layout
    bits = tlp.beats(16)[0]["data"]
    constant = struct.from_bits(bits)
    assert {name: int(constant[name]) for name in fields} == fields


def test_beats_carry_the_payload_from_the_second_one():
    config = PRESETS["default"]
    tlp = memory_request(0x40, 40, data=bytes(range(40)))
    beats = tlp.beats(config.bus_bytes, bar=2)
    assert [beat["last"] for beat in beats] == [0, 0, 1]
    assert beats[0]["bar"] == 2
    assert beats[1]["data"] == int.from_bytes(bytes(range(32)), "little")
    assert beats[2]["data"] == int.from_bytes(bytes(range(32, 40)), "little")
    assert Tlp.from_words([beat["data"] for beat in beats], config.bus_bytes) == tlp


def test_completions_count_down_and_follow_the_byte_enables():
    read = memory_request(0x1003, 130)
    parts = completions(read, bytes(4 * read.length), [0x1040, 0x1080])
    assert [(p.byte_count, p.lower_address, p.length) for p in parts] == [
        (130, 0x03, 16),
        (69, 0x40, 16),
        (5, 0x00, 2),
    ]
