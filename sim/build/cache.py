"""Compiled artefacts on disk, found by the hash of everything they were made from.

An artefact is a folder of files that appears under its final name in one step, when it is whole. An
interrupted build leaves at most a temporary folder, which the next build removes. After a build the
artefacts used longest ago are removed until the rest fits the bound; one that a process uses stays.

Disks lose and change bytes: an artefact carries the digests of its files, which each process
compares before it uses the artefact for the first time. A damaged one is built again.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from halfdome.sim.log import LOGGER

DEFAULT_BYTES = 2 << 30
DIGESTS = "SHA256SUMS"
"""The file of an artefact that holds the digests of the others, as `sha256sum --check` reads it."""
_FORMAT = b"digests"
"""How artefacts and shortcuts are kept; what was kept otherwise is not found."""
_BUILDING = ".building"
_in_use: dict[Path, int] = {}
"""A descriptor of each folder this process uses, with a shared lock, until the process ends."""


class BuildError(RuntimeError):
    """A tool is missing or refused its input. The message says which, and what to do."""


def cache_dir() -> Path:
    """The cache: `$HALFDOME_CACHE`, else `halfdome` under `$XDG_CACHE_HOME` or `~/.cache`.

    Raises `BuildError` for a user without a home, as in many containers.
    """
    if chosen := os.environ.get("HALFDOME_CACHE"):
        return Path(chosen)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "halfdome"
    except RuntimeError:
        raise BuildError(
            "this user has no home folder for the cache; set HALFDOME_CACHE to a folder"
        ) from None


def cache_bytes() -> int:
    """The bound of the cache: `$HALFDOME_CACHE_BYTES`, else 2 GiB. Raises `ValueError`."""
    text = os.environ.get("HALFDOME_CACHE_BYTES") or str(DEFAULT_BYTES)
    if not text.isdecimal():
        raise ValueError(f"HALFDOME_CACHE_BYTES={text}: must be a number of bytes, 0 or more")
    return int(text)


def content_key(*parts: str | bytes) -> str:
    """SHA-256 of the cache's format and the parts with their lengths, 32 hexadecimal digits."""
    digest = hashlib.sha256(_FORMAT)
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()[:32]


@contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Holds the lock of a file; without `wait`, yields False if another process holds it."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                yield False
                return
            LOGGER.info("waiting for another build of %s", path.with_suffix(""))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield True


def _digests(folder: Path) -> str:
    """A line for each file of an artefact but its own `DIGESTS`."""
    lines = []
    for path in sorted(folder.iterdir()):
        if path.name != DIGESTS:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            lines.append(f"{digest}  {path.name}\n")
    return "".join(lines)


def _is_whole(folder: Path) -> bool:
    """Whether an artefact holds what was built, bit for bit."""
    try:
        return (folder / DIGESTS).read_bytes() == os.fsencode(_digests(folder))
    except OSError:
        return False


def _hold(folder: Path) -> int | None:
    """A descriptor of a folder with a shared lock, None if it is not there."""
    while True:
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return None
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # waits for a removal under way
        with suppress(OSError):
            if os.path.samestat(folder.stat(), os.fstat(descriptor)):
                return descriptor
        os.close(descriptor)


def use(folder: Path) -> bool:
    """Keeps an artefact from removal while this process lives; False if none is there and whole.

    What this process uses already is not read again.
    """
    descriptor = _hold(folder)
    if descriptor is None:
        return False
    before = _in_use.get(folder)
    if before is not None and os.path.sameopenfile(before, descriptor):
        os.close(descriptor)
    elif _is_whole(folder):
        _keep(folder, descriptor)
    else:
        os.close(descriptor)
        return False
    with suppress(OSError):  # a cache that cannot be written still serves
        os.utime(folder)
    return True


def _keep(folder: Path, descriptor: int) -> None:
    replaced = _in_use.pop(folder, None)
    _in_use[folder] = descriptor
    if replaced is not None:
        os.close(replaced)


@contextmanager
def _writing(root: Path) -> Iterator[None]:
    """Says of an error of the operating system what a user can do about it."""
    try:
        yield
    except OSError as error:
        raise BuildError(
            f"cannot write the cache {root}: {error.strerror or error}; free space there, or set "
            "HALFDOME_CACHE to a folder on another disk"
        ) from error


def check_writable() -> None:
    """Raises `BuildError` if nothing can be kept: at once, not after what takes a minute."""
    root = cache_dir()
    with _writing(root):
        root.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=root).close()


def cached(kind: str, key: str, build: Callable[[Path], None]) -> Path:
    """The artefact `kind-key`, made by `build(folder)` if it is not there yet.

    Concurrent callers, in this process or others, build once. Raises what `build` raises,
    `BuildError` if the cache cannot be written, and `ValueError` for a bad bound; none of them
    leaves anything behind that would be used.
    """
    root = cache_dir()
    final = root / f"{kind}-{key}"
    if use(final):
        return final
    bound = cache_bytes()
    with _writing(root):
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root / f"{kind}-{key}.lock"):
            if use(final):
                return final
            if os.path.lexists(final):
                LOGGER.warning("%s is damaged: removed, and built again", final)
                _erase(final)
            for stale in root.glob(f"{kind}-{key}.*{_BUILDING}"):  # the lock says no one is at it
                shutil.rmtree(stale, ignore_errors=True)
            folder = root / f"{kind}-{key}.{os.urandom(4).hex()}{_BUILDING}"
            folder.mkdir()  # whoever may read the cache may read what is in it
            try:
                build(folder)
                (folder / DIGESTS).write_text(_digests(folder))
                held = _hold(folder)
                folder.rename(final)
                if held is not None:
                    _keep(final, held)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        _shrink(root, bound)
    return final


def _erase(path: Path) -> None:
    """Removes a folder, at once under its name, or what stands where one should."""
    if not path.is_dir() or path.is_symlink():
        path.unlink()
        return
    condemned = path.with_name(f"{path.name}.{os.urandom(4).hex()}{_BUILDING}")
    path.rename(condemned)
    shutil.rmtree(condemned, ignore_errors=True)


def _shortcut(name: str) -> Path:
    return cache_dir() / f"index-{name}"


def remember(name: str, folder: Path) -> None:
    """Lets `recall(name)` find an artefact without its key. A cache that is full forgets it."""
    shortcut = _shortcut(name)
    temporary = shortcut.with_suffix(f".{os.getpid()}")
    try:
        temporary.write_text(f"{folder.name} {content_key(name, folder.name)}")
        temporary.replace(shortcut)
    except OSError:
        temporary.unlink(missing_ok=True)


def recall(name: str) -> Path | None:
    """The artefact that was remembered, in use from now on; None if none is there and whole."""
    shortcut = _shortcut(name)
    if not os.path.lexists(shortcut):
        return None
    if (folder := _target(shortcut)) is None:
        LOGGER.warning("%s is damaged: removed", shortcut)
        with suppress(OSError):
            _erase(shortcut)
        return None
    return folder if use(folder) else None


def _target(shortcut: Path) -> Path | None:
    """Where a shortcut leads; None if it is damaged."""
    try:
        artefact, _, digest = shortcut.read_text().partition(" ")
    except (OSError, UnicodeDecodeError):
        return None
    whole = digest == content_key(shortcut.name.removeprefix("index-"), artefact)
    return shortcut.parent / artefact if whole else None


def summary() -> dict[str, object]:
    """What the cache holds: `path`, `entries`, `models`, `bytes` and its bound `limit_bytes`."""
    root = cache_dir()
    entries = _entries(root)
    return {
        "path": str(root),
        "entries": len(entries),
        "models": sum(entry.name.startswith("model-") for entry in entries),
        "bytes": sum(map(_size, entries)),
        "limit_bytes": cache_bytes(),
    }


def _entries(root: Path) -> list[Path]:
    """Whole artefacts, the one used longest ago first. What has no lock file is not the cache's."""
    dated = []
    for lock in root.glob("*.lock"):
        with suppress(OSError):
            dated.append((lock.with_suffix("").stat().st_mtime_ns, lock.with_suffix("")))
    return [path for _, path in sorted(dated)]


def _size(folder: Path) -> int:
    """Bytes of the files of an artefact, 0 if it was removed meanwhile."""
    total = 0
    with suppress(OSError):
        for path in folder.iterdir():
            total += path.stat().st_size
    return total


def _shrink(root: Path, bound: int) -> None:
    """Removes what killed builds left, and artefacts beyond the bound that nobody uses."""
    for half in root.glob(f"*{_BUILDING}"):
        lock = root / f"{half.name.split('.')[0]}.lock"
        if lock.exists():
            with _locked(lock, wait=False) as mine:
                if mine:
                    shutil.rmtree(half, ignore_errors=True)
    entries = _entries(root)
    sizes = [_size(entry) for entry in entries]
    total = sum(sizes)
    for entry, size in zip(entries, sizes, strict=True):
        if total <= bound:
            break
        if _remove(entry):
            total -= size
    for shortcut in root.glob("index-*"):
        target = _target(shortcut)
        if target is None or not target.exists():
            with suppress(OSError):
                _erase(shortcut)


def _remove(entry: Path) -> bool:
    """Removes an artefact unless a process uses it."""
    try:
        descriptor = os.open(entry, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _erase(entry)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
