"""Waveforms of one card in a window of cycles, as a VCD file."""

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TextIO


@dataclass(frozen=True)
class Waves:
    """What to write. At n ns of the file every signal has its value of cycle n.

    The clock rises half a nanosecond later.

    Parameters
    ----------
    path : file to write, created when the window begins; an older one is removed
    card : index of the card
    start, stop : card clock cycles, the first of the window and the one after its last

    Raises `ValueError` for a window without cycles or a path that cannot be a file.
    """

    path: Path
    _: KW_ONLY
    card: int = 0
    start: int = 0
    stop: int

    def __post_init__(self):
        object.__setattr__(self, "path", Path(self.path))
        if self.start < 0:
            raise ValueError(f"waves: start={self.start}: must be 0 or more")
        if self.stop <= self.start:
            raise ValueError(
                f"waves: stop={self.stop}: must be greater than start={self.start}, "
                "the window holds at least one cycle"
            )
        if self.path.is_dir():
            raise ValueError(f"waves: path={self.path}: is a folder, must be a file")
        if not self.path.parent.is_dir():
            raise ValueError(f"waves: path={self.path}: folder {self.path.parent} does not exist")

    def clear(self) -> None:
        """Removes an older file. Raises `OSError` if the file cannot be written."""
        self.path.open("wb").close()
        self.path.unlink()


def check_card(card: int, cards: int) -> None:
    """Raises `ValueError` if a platform of `cards` has no card of this number."""
    if not 0 <= card < cards:
        raise ValueError(
            f"waves: card={card}: must be 0 to {cards - 1}, the platform has "
            f"{cards} {'card' if cards == 1 else 'cards'}"
        )


def cut(whole: TextIO, window: TextIO, first_time: int) -> None:
    """Copies a VCD without what is before `first_time`, where every signal gets its value so far.

    `whole` ends where the window does.
    """
    lines = iter(whole)
    for line in lines:
        window.write(line)
        if line.startswith("$enddefinitions"):
            break
    values = {}
    late = ""
    for line in lines:
        if line.startswith("#") and int(line[1:]) >= first_time:
            late = line
            break
        if line[0] not in "#$\n":
            values[_identifier(line)] = line
    window.write(f"#{first_time}\n$dumpvars\n")
    window.writelines(values.values())
    window.write("$end\n")
    if late and int(late[1:]) > first_time:
        window.write(late)
    window.writelines(lines)


def _identifier(change: str) -> str:
    """The signal of a line like `1!`, `b0101 "` or `sTEXT #`."""
    return change.split()[-1] if change[0] in "bBrRsS" else change[1:].strip()
