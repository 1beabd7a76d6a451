"""ROC AUC is the share of pairs ranked rightly, whatever the ties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfdome.host.models.metrics import roc_auc


@given(
    pairs=st.lists(
        st.tuples(st.booleans(), st.one_of(st.integers(0, 3), st.floats(-9, 9))), max_size=40
    )
)
def test_auc_is_the_share_of_pairs_ranked_rightly(pairs):
    pairs = [*pairs, (True, 1), (False, 1)]
    labels = np.array([label for label, _ in pairs], np.float32)
    scores = np.array([score for _, score in pairs], np.float64)
    wins = [(p > n) + 0.5 * (p == n) for p in scores[labels == 1] for n in scores[labels == 0]]
    assert roc_auc(labels, scores) == pytest.approx(np.mean(wins), abs=1e-12)


def test_auc_of_integer_scores_is_exact_at_the_extremes():
    labels = np.array([0, 0, 1, 1])
    assert roc_auc(labels, np.array([0, 1, 2, 3], np.uint8)) == 1
    assert roc_auc(labels, np.array([3, 2, 1, 0], np.uint8)) == 0
    assert roc_auc(labels, np.zeros(4, np.uint8)) == 0.5


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([1, 0], [1.0], "one shape"),
        ([1, 1], [1.0, 2.0], "2 ones and 0 zeros"),
        ([], [], "0 ones and 0 zeros"),
        ([1, 2], [1.0, 2.0], "must be 0 or 1"),
        ([1, 0], [1.0, np.nan], "1 are NaN"),
    ],
)
def test_what_has_no_auc_is_refused(labels, scores, message):
    with pytest.raises(ValueError, match=message):
        roc_auc(np.array(labels), np.array(scores))
