"""The cache of compiled artefacts: built once, used only when whole."""

import multiprocessing
import threading
import time

import pytest

from sim.engine.cache import cache_dir, cached, content_key


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
