"""How well scores order their labels."""

import numpy as np


def roc_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve: how often a positive outranks a negative, ties counting half.

    `labels` are 0 or 1, `scores` any real, both of shape [n]. Computed from mid-ranks (Mann and
    Whitney, 1947). Raises `ValueError` if shapes differ, a score is NaN, or a class is absent.
    """
    labels = np.asarray(labels)
    scores = np.asarray(scores)
    if labels.shape != scores.shape or labels.ndim != 1:
        raise ValueError(f"labels {labels.shape} and scores {scores.shape}: must be one shape [n]")
    if np.isnan(scores).any():
        raise ValueError(f"scores: {np.isnan(scores).sum()} are NaN; they have no rank")
    positive = labels == 1
    if not np.all(positive | (labels == 0)):
        raise ValueError("labels: must be 0 or 1")
    positives = int(positive.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        raise ValueError(f"labels: {positives} ones and {negatives} zeros; both classes are needed")
    _, group, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    mid_rank = np.cumsum(sizes) - (sizes - 1) / 2  # ranks from 1
    rank_sum = mid_rank[group[positive]].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))
