"""Boxes in pictures: which of them to keep, and how far two are the same."""

from typing import NamedTuple

import numpy as np


class Boxes(NamedTuple):
    """Boxes, each with a score.

    Attributes
    ----------
    edges : float[n, 4]; left, top, right and bottom of each
    scores : float[n]
    """

    edges: np.ndarray
    scores: np.ndarray


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """float[n, m]: what boxes [n, 4] and [m, 4] share, over what they cover together."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), -1)
    areas = [np.prod(np.maximum(each[:, 2:] - each[:, :2], 0), -1) for each in (a, b)]
    return shared / (areas[0][:, None] + areas[1][None, :] - shared)


def suppressed(boxes: Boxes, least_score: float, most_overlap: float) -> Boxes:
    """Boxes of some score, without those that overlap a surer one; the surest first."""
    order = np.argsort(-boxes.scores, kind="stable")
    order = order[boxes.scores[order] > least_score]
    kept = []
    while order.size:
        first, others = order[:1], order[1:]
        kept.append(int(first[0]))
        order = others[overlap(boxes.edges[first], boxes.edges[others])[0] <= most_overlap]
    return Boxes(boxes.edges[kept], boxes.scores[kept])
