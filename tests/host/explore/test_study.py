"""Studies are read whole, and what is wrong with them is told by field, value and remedy."""

import math
import re
import tomllib
from itertools import combinations
from pathlib import Path

import pytest

from halfdome.hdl.config import ConfigError
from halfdome.host.explore import parameters, study
from tests.host.explore.studies import SMALL, of


def refused(message, **said):
    with pytest.raises(ValueError) as error:
        of(**said).check()
    assert message in str(error.value)


def test_names_of_parameters_are_of_one_part_alone():
    assert not any(one & other for one, other in combinations(parameters.GROUPS, 2))
    assert set().union(*parameters.GROUPS) == set(parameters.DEFAULTS)


def test_every_combination_comes_once_and_in_order():
    made = of(parameters={"array": ["4x4", "2x8"], "lanes": [1, 2], "cards": 2})
    found = list(made.combinations())
    assert [made.point_name(each) for each in found] == [
        f"array={array} lanes={lanes}" for array in ("4x4", "2x8") for lanes in (1, 2)
    ]
    assert made.size == 4
    design = made.design(found[3])
    assert (design.card.array_rows, design.card.array_columns, design.card.lanes) == (2, 8, 2)
    assert design.cards == 2


def test_parameters_reach_every_part_of_a_design():
    [values] = of(parameters={
        "dma_tags": 8, "uplink_lanes": 4, "cut_through": True, "cards": 3, "fused": False,
        "in_flight": 4, "parallelism": "data", "cores": 2, "cores_sparse": 1, "batch": 5,
        "table_bits": 4,
    }).combinations()  # fmt: skip
    made = of().design(values)
    assert made.card.dma_tags == 8
    assert made.fabric == {"uplink_lanes": 4, "cut_through": True}
    assert (made.cards, made.in_flight, made.parallelism, made.batch) == (3, 4, "data", 5)
    assert (made.cores_sparse, made.table_bits) == (1, 4)
    assert not made.transfers.fused
    assert made.transfers.broadcast


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"version": 2}, "version=2: is of another release; this one reads version 1"),
        ({"lamps": 1}, "lamps: no such field; known are version"),
        ({"parameters": {"lane": 1}}, "lane: no such parameter; nearest are lanes"),
        ({"parameters": {"lanes": [4, 4]}}, "lanes=4: the value is given twice"),
        ({"parameters": {"lanes": []}}, "lanes: has no values"),
        ({"parameters": {"lanes": "4"}}, "lanes='4': must be a whole number"),
        ({"parameters": {"lanes": True}}, "lanes=True: must be a whole number"),
        ({"parameters": {"fused": 1}}, "fused=1: must be true or false"),
        ({"parameters": {"lanes": 3}}, "lanes=3: must be a power of two"),
        ({"parameters": {"array": "axb"}}, "array=axb: must be ROWSxCOLUMNS"),
        ({"parameters": {"array": "4x4", "array_rows": 4}}, "array: sets array_rows"),
        ({"parameters": {"cards": 13}}, "cards=13: must be an integer from 1 to 12"),
        ({"parameters": {"in_flight": 65}}, "in_flight=65: must be an integer from 1 to 64"),
        ({"parameters": {"parallelism": "all"}}, "parallelism='all': must be one of data"),
        ({"parameters": {"cores_sparse": 1}}, "cores_sparse=1: one of 1 cores at least does every"),
        ({"parameters": {"table_bits": 5}}, "table_bits=5: must be 8 or 4"),
        ({"parameters": {"uplink_lanes": 64}}, "uplink_lanes=64: must be an integer from 1"),
        ({"objectives": ["samples_per_secnd"]}, "no such metric; nearest are samples_per_second"),
        ({"objectives": []}, "objectives"),
        ({"objectives": ["samples_per_second_at_p99"]}, "needs the bound on the latency"),
        ({"constraints": {"power_w": {"mots": 1}}}, "mots: no such field; nearest are most"),
        ({"config": "tinny"}, "preset 'tinny' is unknown"),
        ({"engine": "fast"}, "engine='fast'"),
        ({"search": {"method": "annealing"}}, "search.method='annealing'"),
        ({"search": {"seeds": 3}}, "search.seeds: no such field; nearest are seed"),
        ({"search": {"seed": 1 << 32}}, "search.seed=4294967296: input should be less than"),
        ({"constraints": {"power_w": {"most": math.nan}}}, "constraints.power_w.most=nan"),
        ({"arrivals": {"p99_us": math.inf}}, "arrivals.p99_us=inf"),
        ({"workload": {"kind": "dlrm"}}, "workload"),
        ({"workload": SMALL | {"pooling": 0}}, "workload.pooling=0"),
        ({"workload": SMALL | {"poling": 1}}, "poling: no such field; nearest are pooling"),
        ({"arrivals": {"p99_us": 0}}, "arrivals.p99_us=0"),
        ({"arrivals": {"p99_us": 1, "requests": 10}}, "arrivals.requests=10"),
    ],
)
def test_what_is_wrong_is_told(said, message):
    refused(message, **({"parameters": {"lanes": 4}} | said))


def test_values_are_left_out_on_the_timing_engine_alone():
    made = of(parameters={"lanes": 4}, values=False)
    values = {"lanes": 4}
    assert not made.design(values).computes
    assert made.on_rtl().design(values).computes
    refused("values=False: needs engine='timing'", values=False, engine="native", parameters={})


def test_a_value_that_fits_some_combinations_is_no_mistake():
    of(parameters={"array_rows": [4, 32], "bus_bytes": [16, 32]}).check()
    refused(
        "array_rows=64: fits no combination: array_rows=64: one bus word must hold",
        parameters={"array_rows": [4, 64], "bus_bytes": [16, 32]},
    )


def test_a_compiled_model_cannot_vary_what_it_is_compiled_with():
    workload = {"kind": "model", "path": "m.onnx", "requests": "x.npz"}
    for name, value in {"batch": 4, "parallelism": "pipeline", "fused": False}.items():
        of(workload=workload, parameters={name: value})
        refused(f"{name}: is compiled into m.halfdome: give what it was made from",
                workload=workload | {"path": "m.halfdome"}, parameters={name: value})  # fmt: skip


def test_a_host_is_compared_by_a_model_of_a_file():
    workload = {"kind": "model", "path": "m.onnx", "requests": "x.npz"}
    before = of(workload=workload)
    assert of(workload=workload, host={"tdp_w": 65}).hash == before.hash
    for other in (SMALL, workload | {"path": "m.halfdome"}):
        refused("host: needs the workload model", workload=other, host={"tdp_w": 65})
    refused("host.tdp_w=-1", workload=workload, host={"tdp_w": -1})


def test_a_file_names_its_study_and_paths_are_from_its_folder(tmp_path):
    file = tmp_path / "nets.toml"
    file.write_text(
        'version = 1\n[workload]\nkind = "model"\npath = "m.onnx"\nrequests = "/x.npz"\n'
    )
    made = study.checked(study.read(file), str(file), file.parent)
    assert made.name == "nets"
    assert made.workload.path == tmp_path / "m.onnx"
    assert str(made.workload.requests) == "/x.npz"


@pytest.mark.parametrize("field", ["energy", "workload.path", "workload.requests"])
def test_what_a_named_file_holds_is_part_of_a_study(tmp_path, field):
    (tmp_path / "x").mkdir()
    files = {"energy": "e.toml", "workload.path": "m.onnx", "workload.requests": "x/0.npz"}
    for file in files.values():
        (tmp_path / file).write_text("as it was")
    said = {"version": 1, "energy": "e.toml",
            "workload": {"kind": "model", "path": "m.onnx", "requests": "x"}}  # fmt: skip
    before = study.checked(said, "test", tmp_path).hash
    assert study.checked(said, "test", tmp_path).hash == before
    (tmp_path / files[field]).write_text("as it is")
    assert study.checked(said, "test", tmp_path).hash != before


@pytest.mark.parametrize("file", sorted(Path("docs/studies").glob("*.toml")), ids=str)
def test_studies_that_are_shown_are_studies(file):
    study.checked(study.read(file), str(file), file.parent).check()


def test_the_study_that_is_described_is_a_study():
    [text] = re.findall(r"```toml\n(.*?)```", Path("docs/exploring.md").read_text(), re.DOTALL)
    study.checked(tomllib.loads(text), "docs/exploring.md", Path()).check()


@pytest.mark.parametrize(
    ("text", "message"), [("version =", "is no TOML"), (None, "there is no such file")]
)
def test_a_file_that_cannot_be_read_is_told(tmp_path, text, message):
    if text is not None:
        (tmp_path / "a.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        study.read(tmp_path / "a.toml")


def test_results_are_of_everything_that_a_study_says_but_how_long_it_searches():
    made = of(parameters={"lanes": [2, 4]}, search={"method": "random", "points": 2})
    longer = of(parameters={"lanes": [2, 4]}, search={"method": "random", "points": 3})
    other = of(parameters={"lanes": [2]}, search={"method": "random", "points": 2})
    assert made.hash == longer.hash != other.hash


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lanes", "must be FIELD=VALUE"), ("lanes=", "must be FIELD=VALUE"),
        ("=3", "no such parameter"), ("lanes=x", "lanes=x: must be a whole number"),
        ("fused=yes", "fused='yes': must be true or false"),
    ],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        parameters.parse(setting)


def test_settings_are_of_their_parameters_types():
    assert parameters.parse("fused=true,false") == ("fused", [True, False])
    assert parameters.parse("dram_preset=LPDDR4-4266") == ("dram_preset", ["LPDDR4-4266"])
    assert parameters.parse("lanes=-2,4") == ("lanes", [-2, 4])
