"""Golden cycle files: the cycle counts a test expects, in JSON next to the tests.

`{"name": {"config": hash, "cycles": count}}`, sorted by name: a renewal shows as a small diff.
"""

import json
import operator
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

RENEW = "--renew-cycles"
"""The option of pytest that writes what it measures."""


class CycleMismatch(AssertionError):
    """A cycle count is not the recorded one, or none is recorded. The message says what to do."""


@dataclass(frozen=True)
class CycleFile:
    """The golden cycle counts of one test module, in the file `path`."""

    path: Path

    def check(self, name: str, cycles: int, config: str) -> None:
        """Compares with what is recorded; `config` is the hash of the configuration measured.

        Raises `CycleMismatch`, and `ValueError` if the file cannot be understood.
        """
        cycles = _count(name, cycles)
        entry = self._read().get(name)
        if entry is None:
            raise CycleMismatch(
                f"{name}: {cycles} cycles, but {self.path} has no entry of this name; "
                f"run this test with {RENEW} to create it"
            )
        if entry["config"] != config:
            raise CycleMismatch(
                f"{name}: recorded in {self.path} for configuration {entry['config']}, measured on "
                f"{config}; run with the --config it was recorded for, or, if the configuration "
                f"was changed on purpose, with {RENEW}"
            )
        if (old := entry["cycles"]) != cycles:
            change = f"{cycles - old:+d}" + (f", {(cycles - old) / old:+.1%}" if old else "")
            raise CycleMismatch(
                f"{name}: was {old} cycles, is {cycles} ({change}); if this is meant, run this "
                f"test with {RENEW} and commit {self.path}"
            )

    def renew(self, name: str, cycles: int, config: str) -> None:
        """Records a count. Other entries stay, also those that other processes add meanwhile."""
        cycles = _count(name, cycles)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(self.path.parent):
            entries = self._read() | {name: {"config": config, "cycles": cycles}}
            text = json.dumps(entries, indent=2, sort_keys=True) + "\n"
            handle, temporary = tempfile.mkstemp(
                prefix=f".{self.path.name}.", dir=self.path.parent, text=True
            )
            try:
                with os.fdopen(handle, "w") as file:
                    file.write(text)
                Path(temporary).chmod(0o644)
                Path(temporary).replace(self.path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise

    def _read(self) -> dict[str, dict]:
        try:
            entries = json.loads(self.path.read_text())
        except FileNotFoundError:
            return {}
        except json.JSONDecodeError as error:
            raise ValueError(f"{self.path}: is not JSON ({error}); mend or delete it") from error
        for name, entry in entries.items() if isinstance(entries, dict) else [("", entries)]:
            if not (
                isinstance(entry, dict)
                and isinstance(entry.get("cycles"), int)
                and isinstance(entry.get("config"), str)
            ):
                raise ValueError(
                    f"{self.path}: {name!r} is not an object with `config` and `cycles`; mend it, "
                    f"or delete the file and run the tests with {RENEW}"
                )
        return entries


def _count(name: str, cycles: int) -> int:
    count = operator.index(cycles)
    if count < 0:
        raise ValueError(f"{name}: cycles={count}: must be 0 or more")
    return count


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The folder itself is the lock: nothing is left behind among the user's files."""
    import fcntl  # not on every system; needed only where files are renewed

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
