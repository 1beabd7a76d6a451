"""What benches ask of the answers of a deployment."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from halfdome.host.runtime.flights import Response


def span_cycles(answers: Sequence[Response]) -> int:
    """Cycles from the first command's start to the last one's end, on the first card."""
    ran = [answer.spans[0][answer.spans[0][:, 0] >= 0] for answer in answers]
    return int(max(each[:, 1].max() for each in ran) - min(each[:, 0].min() for each in ran))


def differing(answers: Iterable[Response], expected: Iterable[Mapping[str, np.ndarray]]) -> int:
    """Values that are not those expected."""
    return sum(
        int((answer.outputs[name] != values[name]).sum())
        for answer, values in zip(answers, expected, strict=True)
        for name in answer.outputs
    )
