"""What the two ends of a serial line to a board agree on.

The host asks, the board answers; a message is a number and a body. The board does what a number
asks once, and answers again if it comes again: so the host repeats a question until it has an
answer. A message of number `HELLO` alone resets what is behind the line; its answer is the version.
The other numbers go round.

A body asks for one run of 32-bit words: a byte with their number, and `WRITE`; the byte address, 4
bytes; the words to write. The answer is `DONE` and the words read, or `REFUSED`. All numbers are
little-endian.
"""

BAUD = 1_000_000
"""Bits a second."""
FLAG, ESCAPE, INVERTED = 0x7E, 0x7D, 0x20
"""Begins and ends a frame, announces an escaped byte, what that is exclusive-ored with."""
CHECK_BYTES = 4
"""Bytes of the frame check sequence, CRC-32."""
FRAME_BYTES = 256
"""Most bytes of a frame between its flags, escapes not counted."""

HELLO = 0
"""The number of a message that resets."""
NUMBERS = 256
LINE_VERSION = 1

HEADER_BYTES = 5
WRITE = 0x80
MOST_WORDS = 32
"""Most words of a run."""
DONE, REFUSED = 0, 1
