"""The host's end of a serial line to a board: questions repeated until they are answered."""

import re
import time
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from halfdome.hdl.serial import (
    BAUD,
    CHECK_BYTES,
    DONE,
    ESCAPE,
    FLAG,
    FRAME_BYTES,
    HELLO,
    INVERTED,
    LINE_VERSION,
    MOST_WORDS,
    NUMBERS,
    WRITE,
)
from halfdome.host.driver.errors import CardError, CardLost

if TYPE_CHECKING:
    from serial import Serial

ANSWER_SECONDS = 0.3
"""How long an answer is waited for: it is on the line for 2 ms at most, and USB may hold it 16."""
TRIES = 8
_WORD_BYTES = 4
_ESCAPED = re.compile(bytes([ESCAPE]) + b"(.)", re.DOTALL)


def frame(message: bytes) -> bytes:
    """A message as the line carries it: RFC 1662, sections 4 and C.3."""
    whole = message + zlib.crc32(message).to_bytes(CHECK_BYTES, "little")
    for byte in (ESCAPE, FLAG):
        whole = whole.replace(bytes([byte]), bytes([ESCAPE, byte ^ INVERTED]))
    return bytes([FLAG]) + whole + bytes([FLAG])


def messages(pieces: list[bytes]) -> Iterator[bytes]:
    """The messages in what lay between flags; what is damaged is dropped."""
    for piece in pieces:
        whole = _ESCAPED.sub(lambda found: bytes([found[1][0] ^ INVERTED]), piece)
        message, check = whole[:-CHECK_BYTES], whole[-CHECK_BYTES:]
        good = zlib.crc32(message).to_bytes(CHECK_BYTES, "little") == check
        if message and good and len(whole) <= FRAME_BYTES:
            yield message


class SerialLine:
    """Words of a board's bus, read and written over a serial port. `close` gives the port back.

    Parameters
    ----------
    port : str, `/dev/ttyUSB0`, `COM3`, or a URL of pyserial
    answer_seconds : float, how long an answer is waited for before the question is repeated

    Raises `ImportError` without pyserial, and `CardError` for a port that is not there or in use,
    or that has something else than a board behind it.
    """

    def __init__(self, port: str, answer_seconds: float = ANSWER_SECONDS):
        try:
            import serial
        except ImportError as error:
            raise ImportError(
                "pyserial is not installed: `pip install 'halfdome[board]'`"
            ) from error
        self.port = port
        self._answer_seconds = answer_seconds
        self._number = HELLO
        self._unread = b""
        self._heard = 0
        try:
            self._serial: Serial = serial.serial_for_url(
                port, baudrate=BAUD, timeout=answer_seconds, exclusive=True
            )
        except (serial.SerialException, ValueError) as error:
            raise CardError(
                f"board {port!r}: cannot be opened, {error}; give the serial port of the board"
            ) from error
        try:
            self.greet()
        except BaseException:
            self.close()
            raise

    def greet(self) -> None:
        """Resets what is behind the line. Raises `CardError` if that is no board."""
        self._number = HELLO
        try:
            answer = self._exchange(bytes([HELLO]))
        except TimeoutError as error:
            found = "nothing answers"
            if self._heard:
                found = f"something else answers, {self._heard} bytes without a message"
            raise CardError(
                f"board {self.port!r}: {found}; is it this port, and is its bitstream loaded?"
            ) from error
        if answer != bytes([LINE_VERSION]):
            raise CardError(
                f"board {self.port!r}: speaks version {answer.hex()} of the line, this host "
                f"{LINE_VERSION:02x}; load a bitstream of this release"
            )

    def read(self, address: int, nbytes: int) -> bytes:
        """Reads whole words. Raises `TimeoutError` if no answer comes."""
        pieces = []
        for start in range(0, nbytes, MOST_WORDS * _WORD_BYTES):
            words = min(MOST_WORDS, (nbytes - start) // _WORD_BYTES)
            pieces.append(self._ask(words, address + start, b""))
        return b"".join(pieces)

    def write(self, address: int, raw: bytes) -> None:
        """Writes whole words; returns when they are written. Raises `TimeoutError` likewise."""
        for start in range(0, len(raw), MOST_WORDS * _WORD_BYTES):
            piece = raw[start : start + MOST_WORDS * _WORD_BYTES]
            self._ask(len(piece) // _WORD_BYTES | WRITE, address + start, piece)

    def close(self) -> None:
        """Gives the port back."""
        self._serial.close()

    def _ask(self, words: int, address: int, raw: bytes) -> bytes:
        self._number = self._number % (NUMBERS - 1) + 1
        body = bytes([words]) + address.to_bytes(4, "little") + raw
        answer = self._exchange(bytes([self._number]) + body)
        expected = 1 if words & WRITE else 1 + words * _WORD_BYTES
        if answer[:1] != bytes([DONE]) or len(answer) != expected:
            raise CardError(f"board {self.port!r}: refuses {words & ~WRITE} words at {address:#x}")
        return answer[1:]

    def _exchange(self, message: bytes) -> bytes:
        """The body of the answer to a message."""
        import serial

        framed = frame(message)
        try:
            for _ in range(TRIES):
                self._serial.write(framed)
                until = time.monotonic() + self._answer_seconds
                while time.monotonic() < until:
                    for answer in messages(self._pieces()):
                        if answer[0] == message[0]:
                            return answer[1:]
        except serial.SerialException as error:
            raise CardLost(f"board {self.port!r}: the port is gone, {error}") from error
        raise TimeoutError(f"board {self.port!r}: no answer to {TRIES} questions")

    def _pieces(self) -> list[bytes]:
        """What lay between the flags that have come; waits for some bytes."""
        came = self._serial.read(max(1, self._serial.in_waiting))
        self._heard += len(came)
        *pieces, rest = (self._unread + came).split(bytes([FLAG]))
        self._unread = rest[-2 * FRAME_BYTES :]
        return pieces
