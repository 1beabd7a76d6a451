"""A port that is not there, that is silent, or that has something else behind it is told apart."""

import os
import threading
import tty

import pytest

from halfdome.hdl.serial import LINE_VERSION
from halfdome.host import platform
from halfdome.host.driver.errors import CardError
from halfdome.host.driver.serial_line import SerialLine, frame, messages

pytest.importorskip("serial")


@pytest.fixture
def port():
    """Both ends of a pseudo-terminal: what is behind a port, and the port."""
    behind, end = os.openpty()
    tty.setraw(end)
    yield behind, os.ttyname(end)
    os.close(behind)
    os.close(end)


def answer(descriptor, *replies):
    """Answers each message that comes with the next reply, in a thread."""

    def run():
        heard = b""
        for reply in replies:
            before = heard.count(b"~")
            while heard.count(b"~") < before + 2:
                try:
                    heard += os.read(descriptor, 1000)
                except OSError:  # the port is closed
                    return
            os.write(descriptor, reply)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()


def test_a_port_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CardError, match=r"board '.*/none': cannot be opened, .*No such file"):
        platform.open(board=str(tmp_path / "none"))


def test_a_file_is_no_port(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CardError, match=r"board '.*/file': cannot be opened"):
        platform.open(board=str(tmp_path / "file"))


def test_a_silent_port_is_told(port):
    with pytest.raises(CardError, match="nothing answers; is it this port"):
        SerialLine(port[1], answer_seconds=0.01)


def test_a_port_with_something_else_behind_it_is_told(port):
    answer(port[0], b"login: \r\n\x7e\x7e\x7d\x7e\x00\xff")
    with pytest.raises(CardError, match="something else answers, 15 bytes without a message"):
        SerialLine(port[1], answer_seconds=0.01)


def test_another_version_of_the_line_is_told(port):
    answer(port[0], frame(bytes([0, LINE_VERSION + 1])))
    with pytest.raises(CardError, match="speaks version 02 of the line, this host 01"):
        SerialLine(port[1])


def test_noise_late_answers_and_lost_answers_are_lived_with(port):
    hello = frame(bytes([0, LINE_VERSION]))
    answer(
        port[0], b"noise" + hello, b"", frame(b"\x01\x00\x11\x22\x33\x44")[1:],
        hello + frame(b"\x00\x00") + frame(b"\x01\x00\x11\x22\x33\x44"),
        frame(b"\x01\x00\x11\x22\x33\x44"), frame(b"\x02\x00"), frame(b"\x03\x01"),
    )  # fmt: skip
    line = SerialLine(port[1], answer_seconds=0.05)
    assert line.read(0, 4) == b"\x11\x22\x33\x44"
    line.close()


def test_what_the_board_refuses_is_told_with_its_address(port):
    answer(port[0], frame(bytes([0, LINE_VERSION])), frame(b"\x01\x01"))
    line = SerialLine(port[1])
    with pytest.raises(CardError, match="refuses 2 words at 0x1000"):
        line.write(0x1000, bytes(8))
    line.close()


def test_frames_are_those_of_the_rfc():
    assert frame(b"123456789") == b"\x7e123456789\x26\x39\xf4\xcb\x7e"  # the CRC's own check
    assert frame(b"\x7d\x7e")[:5] == b"\x7e\x7d\x5d\x7d\x5e"
    assert list(messages(frame(b"\x7d\x7e").split(b"\x7e"))) == [b"\x7d\x7e"]
    assert list(messages([b"", b"1234", b"12345", frame(bytes(300))[1:-1]])) == []
