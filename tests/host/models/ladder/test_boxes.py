"""What is kept of the boxes that a network finds."""

import numpy as np

from halfdome.host.models.ladder import pp_ocr, yolox
from halfdome.host.models.ladder.boxes import Boxes, overlap, suppressed


def test_boxes_overlap_by_what_they_share_of_what_they_cover():
    a = np.array([[0, 0, 2, 2], [5, 5, 6, 6]])
    b = np.array([[1, 0, 3, 2], [0, 0, 2, 2], [2, 0, 4, 2]])
    np.testing.assert_allclose(overlap(a, b), [[1 / 3, 1, 0], [0, 0, 0]])


def test_the_surest_of_boxes_that_overlap_is_kept():
    edges = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [40, 0, 50, 10]])
    scores = np.array([0.6, 0.9, 0.7, 0.1])
    kept = suppressed(Boxes(edges, scores), 0.2, 0.5)
    np.testing.assert_array_equal(kept.edges, edges[[1, 2]])
    np.testing.assert_array_equal(kept.scores, [0.9, 0.7])
    none = suppressed(Boxes(edges, scores), 0.95, 0.5)
    assert none.edges.shape == (0, 4)


def test_a_row_of_yolox_is_a_box_from_its_place_on():
    output = np.zeros((1, 3549, 6), np.float32)
    # The second row of 52 places of 8 pixels, its fourth; then the second of 13 of 32 pixels.
    output[0, 52 + 3] = 0.5, 0.25, np.log(2), 0, 0.9, 0.8
    output[0, 52 * 52 + 26 * 26 + 1] = 0, 0, 0, np.log(0.5), 1, 0.5
    found = yolox.boxes(output)
    np.testing.assert_allclose(found.edges, [[20, 6, 36, 14], [16, -8, 48, 8]], rtol=1e-6)
    np.testing.assert_allclose(found.scores, [0.72, 0.5], rtol=1e-6)


def test_pixels_that_hang_together_are_a_line():
    likely = np.zeros((1, 1, 20, 40), np.float32)
    likely[0, 0, 4:8, 3:13] = 0.9
    likely[0, 0, 8:12, 13:20] = 0.6  # hangs on by a corner, and makes the first less sure
    likely[0, 0, 15:17, 30:38] = 0.9  # too low
    likely[0, 0, 2:8, 30:36] = 0.8
    found = pp_ocr.lines(likely)
    size = np.array([6, 6])
    border = size.prod() * 1.6 / (2 * size.sum())
    np.testing.assert_allclose(
        found.edges, [[30 - border, 2 - border, 36 + border, 8 + border]], rtol=1e-6
    )
    np.testing.assert_allclose(found.scores, [0.8], rtol=1e-6)
    assert pp_ocr.lines(np.zeros((1, 1, 20, 40))).edges.shape == (0, 4)
