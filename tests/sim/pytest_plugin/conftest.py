"""Runs pytest with the plugin, as its users do."""

import os

import pytest
from platformdirs import user_cache_dir

import halfdome.host.platform
import halfdome.sim.platform  # noqa: F401  numpy loads once in a process, and an error has one class
from halfdome.sim.build.cache import cache_dir

CACHE = cache_dir()
YOSYS = os.environ.get("YOWASP_CACHE_DIR") or user_cache_dir("YoWASP", appauthor=False)


@pytest.fixture(autouse=True)
def keep_the_cache(monkeypatch):
    """`pytester` moves the home folder, and with it where compiled models and Yosys are kept."""
    monkeypatch.setenv("HALFDOME_CACHE", str(CACHE))
    monkeypatch.setenv("YOWASP_CACHE_DIR", YOSYS)


@pytest.fixture
def run(pytester):
    """Runs pytest on a test file; every VCD below its temporary folder is in `run.waveforms()`."""

    def run(source, *arguments):
        pytester.makepyfile(test_user=source)
        return pytester.runpytest(
            "--strict-markers", "-p", "no:cacheprovider", f"--basetemp={pytester.path}/temp",
            *arguments,
        )  # fmt: skip

    def waveforms():
        return sorted((pytester.path / "temp").rglob("*.vcd"))

    run.waveforms = waveforms
    return run
