"""The cache of compiled artefacts: built once, used only when whole, never beyond its bound."""

import errno
import hashlib
import multiprocessing
import os
import pwd
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from halfdome.sim.build import compiler
from halfdome.sim.build.cache import (
    DIGESTS,
    BuildError,
    cache_dir,
    cached,
    content_key,
    recall,
    remember,
    summary,
)
from halfdome.sim.rtl import native


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HALFDOME_CACHE", str(tmp_path / "cache"))


def artefact(text="whole"):
    return lambda folder: (folder / "file").write_text(text)


def test_built_once_and_found_again():
    built = []
    for _ in range(2):
        path = cached("kind", "key", lambda folder: built.append(artefact()(folder)))
        assert (path / "file").read_text() == "whole"
    assert len(built) == 1


def test_who_may_read_the_cache_may_read_what_is_in_it():
    """As of a container whose cache was filled by another user."""
    path = cached("kind", "key", artefact())
    assert path.stat().st_mode == path.parent.stat().st_mode


def test_user_without_a_home_is_told_what_to_set(monkeypatch):
    for name in ("HALFDOME_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)  # as of a container's `--user 12345`
    with pytest.raises(BuildError, match="no home folder for the cache; set HALFDOME_CACHE"):
        cache_dir()


def test_failed_build_leaves_nothing_and_the_next_one_works():
    def fail(folder):
        (folder / "file").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached("kind", "key", fail)
    assert not [path for path in cache_dir().iterdir() if path.is_dir()]
    assert (cached("kind", "key", artefact()) / "file").read_text() == "whole"


def test_killed_build_is_not_used_and_is_removed():
    half = cache_dir() / "kind-key.abc.building"
    half.mkdir(parents=True)
    (half / "file").write_text("half")
    assert (cached("kind", "key", artefact()) / "file").read_text() == "whole"
    assert not half.exists()


def _hang(entered):
    def build(folder):
        (folder / "file").write_text("half")
        entered.set()
        time.sleep(60)

    cached("kind", "key", build)


def test_build_killed_midway_leaves_nothing_usable():
    context = multiprocessing.get_context("spawn")
    entered = context.Event()
    process = context.Process(target=_hang, args=(entered,))
    process.start()
    assert entered.wait(30)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert summary()["entries"] == 0
    assert len(list(cache_dir().glob("*.building"))) == 1
    cached("kind", "other", artefact())  # sweeps what other builds left
    assert not list(cache_dir().glob("*.building"))
    assert (cached("kind", "key", artefact()) / "file").read_text() == "whole"


def _build_after(entered, key):
    cached("kind", key, lambda folder: (entered.set(), artefact()(folder)))


def test_of_two_builds_the_other_goes_on_when_one_is_killed():
    context = multiprocessing.get_context("spawn")
    entered, later = context.Event(), context.Event()
    killed = context.Process(target=_hang, args=(entered,))
    killed.start()
    assert entered.wait(30)
    other = context.Process(target=_build_after, args=(later, "key"))
    other.start()
    assert not later.wait(0.5), "built beside another build"
    killed.kill()
    killed.join()
    other.join()
    assert other.exitcode == 0
    assert (cached("kind", "key", full_disk) / "file").read_text() == "whole"


def full_disk(*_arguments, **_options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_during_a_build_says_what_to_do():
    with pytest.raises(BuildError, match=r"cache .*: No space left on device; .*HALFDOME_CACHE"):
        cached("kind", "key", full_disk)
    assert not [path for path in cache_dir().iterdir() if path.is_dir()]
    assert (cached("kind", "key", artefact()) / "file").read_text() == "whole"


def test_full_disk_before_a_build_says_what_to_do(monkeypatch):
    monkeypatch.setattr(Path, "mkdir", full_disk)
    with pytest.raises(BuildError, match=r"cannot write the cache"):
        cached("kind", "key", artefact())


def test_full_disk_after_a_build_says_what_to_do(monkeypatch):
    def build(folder):
        monkeypatch.setattr(Path, "write_text", full_disk)  # the digests are still to be written

    with pytest.raises(BuildError, match=r"cannot write the cache .*: No space left on device"):
        cached("kind", "key", build)
    assert summary()["entries"] == 0


@pytest.mark.parametrize("place", ["a file", "below a file", "a file system without folders"])
def test_cache_that_cannot_be_written_is_told_before_anything_is_built(
    tmp_path, monkeypatch, place
):
    file = tmp_path / "file"
    file.write_text("not a folder")
    cache = {"a file": file, "below a file": file / "cache"}.get(place, Path("/proc/halfdome"))
    monkeypatch.setenv("HALFDOME_CACHE", str(cache))
    says = rf"cannot write the cache {cache}: .*; free space there, or set HALFDOME_CACHE"
    with pytest.raises(BuildError, match=says):
        cached("kind", "key", artefact())
    with pytest.raises(BuildError, match=says):
        native.build(lambda: pytest.fail("elaborated"), fingerprint="of nothing")
    assert file.read_text() == "not a folder"


def test_full_disk_forgets_the_shortcut_only(monkeypatch):
    path = cached("kind", "key", artefact())
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full_disk)
        remember("name", path)
    assert recall("name") is None
    assert not list(cache_dir().glob("index-*"))
    remember("name", path)
    assert recall("name") == path


def left_by_another_process(name, nbytes, age_seconds):
    folder = cache_dir() / f"kind-{name}"
    folder.mkdir(parents=True)
    folder.with_suffix(".lock").touch()
    (folder / "file").write_bytes(bytes(nbytes))
    digest = hashlib.sha256(bytes(nbytes)).hexdigest()
    (folder / DIGESTS).write_text(f"{digest}  file\n")
    used = time.time() - age_seconds
    os.utime(folder, (used, used))
    return folder


def test_least_recently_used_artefacts_make_room(monkeypatch):
    monkeypatch.setenv("HALFDOME_CACHE_BYTES", "400")
    oldest, newer = (left_by_another_process(name, 100, age) for name, age in (("a", 9), ("b", 8)))
    foreign = cache_dir() / "foreign"
    foreign.mkdir()
    (foreign / "file").write_bytes(bytes(1000))
    remember("of-a", oldest)
    os.utime(oldest, (0, 0))
    new = cached("kind", "c", artefact("x" * 100))
    assert not oldest.exists()
    assert all(path.exists() for path in (newer, new, foreign))
    assert recall("of-a") is None
    assert not list(cache_dir().glob("index-*"))
    assert not list(cache_dir().glob("*.building"))
    assert summary() == {"path": str(cache_dir()), "entries": 2, "models": 0,
                         "bytes": 2 * (100 + len(f"{'':64}  file\n")),
                         "limit_bytes": 400}  # fmt: skip


def test_use_makes_an_artefact_recent():
    folder = left_by_another_process("a", 10, 1000)
    cached("kind", "a", full_disk)
    assert time.time() - folder.stat().st_mtime < 100


def _use_until(key, found, done):
    cached("kind", key, full_disk)
    found.set()
    done.wait(30)


def test_artefacts_in_use_are_never_removed(monkeypatch):
    monkeypatch.setenv("HALFDOME_CACHE_BYTES", "0")
    theirs, nobodys = (left_by_another_process(name, 100, 9) for name in "ab")
    context = multiprocessing.get_context("spawn")
    found, done = context.Event(), context.Event()
    process = context.Process(target=_use_until, args=("a", found, done))
    process.start()
    assert found.wait(30)
    mine = cached("kind", "c", artefact())
    later = cached("kind", "d", artefact())
    assert all(path.exists() for path in (theirs, mine, later))
    assert not nobodys.exists()
    done.set()
    process.join()
    cached("kind", "e", artefact())
    assert not theirs.exists()
    assert mine.exists()


def test_removed_by_hand_is_built_again():
    path = cached("kind", "key", artefact())
    shutil.rmtree(path)
    assert (cached("kind", "key", artefact()) / "file").read_text() == "whole"


@pytest.mark.parametrize("text", ["-1", "2GiB", "1.5"])
def test_bound_that_is_no_number_is_refused(monkeypatch, text):
    monkeypatch.setenv("HALFDOME_CACHE_BYTES", text)
    with pytest.raises(ValueError, match=f"HALFDOME_CACHE_BYTES={text}: must be a number of bytes"):
        cached("kind", "key", artefact())


def test_disk_that_fills_while_compiling(tmp_path, monkeypatch):
    source = tmp_path / "any.cpp"
    source.write_text("int any;")
    monkeypatch.setattr(compiler, "link", full_disk)
    with pytest.raises(BuildError, match="No space left"):
        compiler.library(source, "any")
    assert summary()["entries"] == 0


def test_concurrent_threads_build_once():
    built = []

    def slow(folder):
        built.append(1)
        time.sleep(0.1)
        artefact()(folder)

    threads = [threading.Thread(target=cached, args=("kind", "key", slow)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1


def test_waiting_for_another_build_is_told(caplog):
    other = threading.Thread(target=cached, args=("kind", "key", full_disk))

    def build(folder):
        other.start()
        other.join(0.2)
        artefact()(folder)

    cached("kind", "key", build)
    other.join()
    assert f"waiting for another build of {cache_dir() / 'kind-key'}" in caplog.text


def _build_slowly(log):
    def build(folder):
        with log.open("a") as file:
            file.write("built\n")
        time.sleep(0.1)
        artefact()(folder)

    cached("kind", "key", build)


def test_concurrent_processes_build_once(tmp_path):
    log = tmp_path / "log"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_build_slowly, args=(log,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert log.read_text() == "built\n"


def test_key_depends_on_every_part_and_their_borders():
    keys = {content_key("ab", "c"), content_key("a", "bc"), content_key("abc"), content_key("c")}
    assert len(keys) == 4
