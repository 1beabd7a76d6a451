"""The processor of this machine beside the cards: what a model takes there is measured, the power
is what its maker states. A model of energy, like that of the cards."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime

from halfdome.host.explore.simulate_model import prepared_of
from halfdome.host.explore.study import Host, Model
from halfdome.host.frontend.calibration import read_requests
from halfdome.host.frontend.sessions import run_session

ROUNDS = 5
"""Times that a request is asked; the fastest counts."""


@dataclass(frozen=True)
class HostCpu:
    """What a sample takes in ONNX Runtime on all cores, in the faster of fp32 and 8 bits.

    Attributes
    ----------
    seconds_per_sample : float
    tdp_w : float
    """

    seconds_per_sample: float
    tdp_w: float

    @property
    def samples_per_joule(self) -> float:
        """As if it took the stated power, and nothing else any."""
        return 1 / (self.seconds_per_sample * self.tdp_w)

    def beside(self, row: Mapping[str, Any]) -> str:
        """How a point compares, in words."""
        cards = 1e6 / row["energy_uj_per_sample"]
        return (
            f"{_text(cards)} samples a joule; this host's processor "
            f"{_text(self.samples_per_joule)} in ONNX Runtime, "
            f"{_text(1e3 * self.seconds_per_sample)} ms each at the stated {self.tdp_w:g} W: "
            f"{_text(cards / self.samples_per_joule)} times as many. A model."
        )


def _text(number: float) -> str:
    return f"{float(f'{number:.3g}'):,.15g}"


def measure(said: Model, host: Host) -> HostCpu:
    """What the first request for a model takes here. Raises `ValueError` for a model with embedding
    bags, which are no part of what ONNX Runtime is given."""
    prepared = prepared_of(said)
    if prepared.bags:
        raise ValueError("host: the model has embedding bags, which ONNX Runtime is not given")
    arrays = read_requests(said.requests, "requests")[0]
    taken = []
    for model in filter(None, (prepared.floating, prepared.model)):
        session = onnxruntime.InferenceSession(model.SerializeToString())
        ranks = {each.name: len(each.shape) for each in session.get_inputs()}
        request = {
            name: arrays[name][0] if np.ndim(arrays[name]) > rank else arrays[name]
            for name, rank in ranks.items()
        }
        for _ in range(ROUNDS):
            start = time.perf_counter()
            run_session(session, None, request)
            taken.append(time.perf_counter() - start)
    return HostCpu(min(taken), host.tdp_w)
