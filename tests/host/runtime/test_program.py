"""Programs on disk: what is read is what was written, or an error that says why not."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from halfdome.hdl.config import PRESETS
from halfdome.host.compiler.compile import compile
from halfdome.host.runtime import program as module
from halfdome.host.runtime.deployment import Deployment
from halfdome.host.runtime.program import Program, ProgramError
from halfdome.host.runtime.transfers import Transfers
from tests.host.golden_platform import GoldenPlatform
from tests.host.recommenders import Recommender, check_responses

TINY = PRESETS["tiny"]


def same(one, two):
    """Whether all that two programs hold is equal, dtypes included."""
    plain = all(getattr(one, name) == getattr(two, name) for name in module._PLAIN)
    arrays = [
        {f"{n} {name}": values for n, part in enumerate(program.parts)
         for name, values in [*part.code.items(), *((a, getattr(part, a)) for a in module._ARRAYS)]}
        | dict(program.weights)
        for program in (one, two)
    ]  # fmt: skip
    labels = [part.labels for part in one.parts] == [part.labels for part in two.parts]
    return plain and labels and arrays[0].keys() == arrays[1].keys() and all(
        (a.dtype, a.shape) == (b.dtype, b.shape) and a.tobytes() == b.tobytes()
        for a, b in ((arrays[0][name], arrays[1][name]) for name in arrays[0])
    )  # fmt: skip


@given(seed=st.integers(0, 1 << 30), cards=st.integers(1, 4), relayed=st.booleans())
def test_a_program_is_read_as_it_was_written(tmp_path, seed, cards, relayed):
    transfers = Transfers(peer_pooling=not relayed)
    made = compile(Recommender(seed).graph, TINY, cards, transfers=transfers)
    made.save(tmp_path / "model.program")
    assert same(Program.load(tmp_path / "model.program"), made)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.program"
    compile(Recommender(4).graph, TINY, 2).save(path)
    return path


def test_a_program_that_was_read_serves_its_model(saved):
    made = Recommender(4)
    platform = GoldenPlatform(TINY, 2)
    served = Deployment(platform.session, platform.accelerators, Program.load(saved), lambda: 0)
    requests = [made.request() for _ in range(3)]
    check_responses(made.graph, requests, served.run(requests), Transfers())


def refused(path, message="^"):
    with pytest.raises(ProgramError, match=message) as caught:
        Program.load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_file_that_is_missing_or_is_none_is_refused(tmp_path):
    refused(tmp_path / "none", "no such file")
    refused(tmp_path, "truncated or not a safetensors file")
    (tmp_path / "text").write_text("hello")
    refused(tmp_path / "text", "truncated or not a safetensors file")
    (tmp_path / "empty").write_bytes(b"")
    refused(tmp_path / "empty", "truncated or not a safetensors file")
    save_file({"x": np.zeros(3)}, tmp_path / "other")
    refused(tmp_path / "other", "is no program, its header has no `program` entry")


@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_that_was_cut_short_is_refused(saved, tmp_path, share):
    whole = saved.read_bytes()
    cut = tmp_path / "cut"
    cut.write_bytes(whole[: int(len(whole) * share)])
    refused(cut, "truncated or not a safetensors file")


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_file_with_a_flipped_bit_is_refused(saved, tmp_path, place, bit):
    raw = bytearray(saved.read_bytes())
    raw[int(len(raw) * place)] ^= 1 << bit
    damaged = tmp_path / "damaged"
    damaged.write_bytes(raw)
    refused(damaged)


def rewritten(saved, path, change):
    """A file whose header was changed by hand."""
    with safe_open(saved, framework="numpy") as file:
        metadata = file.metadata()
    about = json.loads(metadata["program"])
    change(about)
    save_file(load_file(saved), path, metadata=metadata | {"program": json.dumps(about)})


def test_a_program_of_another_version_is_refused_with_the_remedy(saved, tmp_path):
    other = tmp_path / "other"
    rewritten(saved, other, lambda about: about.update(version=module.VERSION + 1))
    refused(
        other, f"version {module.VERSION + 1}, this release reads version {module.VERSION}; "
        "compile the model again",
    )  # fmt: skip
    rewritten(saved, other, lambda about: about.pop("version"))
    refused(other, f"version None, this release reads version {module.VERSION}")


def test_a_header_that_was_changed_is_refused(saved, tmp_path):
    other = tmp_path / "other"
    rewritten(saved, other, lambda about: about.update(slots=7))
    refused(other, "damaged")
    save_file(load_file(saved), other, metadata={"program": "[1, 2"})
    refused(other, "damaged")
    save_file(load_file(saved), other, metadata={"program": "[1, 2]"})
    refused(other, "damaged")


def test_events_are_numbered_over_all_cards_and_arrivals_come_last():
    made = compile(Recommender(7).graph, TINY, 3)
    counts = [len(part) for part in made.parts]
    assert [made.first_event(card) for card in range(3)] == [0, counts[0], counts[0] + counts[1]]
    arrivals = np.concatenate([part.arrival[part.arrival >= 0] for part in made.parts])
    assert sorted(arrivals) == list(range(sum(counts), made.events))
