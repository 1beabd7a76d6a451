"""The report of a study, as a reader sees it: drawn, inside its frames, told of by clicks."""

import shutil

import pytest
from playwright.sync_api import sync_playwright

from tests.host.explore.reports import explored_in, write

pytestmark = pytest.mark.slow
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PICTURES = ("front", "coordinates", "sensitivity", "shares", "activities", "roofline", "energy")
OUTSIDE = """picture => {
    const frame = document.getElementById(picture).getBoundingClientRect();
    return [...document.querySelectorAll(`#${picture} .main-svg text`)].filter(text => {
        const box = text.getBoundingClientRect();
        return box.width && (box.left < frame.left - 1 || box.right > frame.right + 1
            || box.top < frame.top - 1 || box.bottom > frame.bottom + 1);
    }).map(text => text.textContent);
}"""
"""The texts of a picture of which something is drawn beyond its frame."""


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium here: install it by the system's packages")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, tmp_path):
    """Opens the report of a study; the page, on which no error may happen."""
    errors = []

    def opened(study, points, width=1280):
        path = tmp_path / "report.html"
        write(path, study, points)
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.on("pageerror", lambda error: errors.append(error))
        page.goto(path.as_uri())
        page.wait_for_function("document.querySelectorAll('.main-svg').length >= 7")
        return page

    yield opened
    assert errors == []


@pytest.mark.parametrize(
    ("width", "parameters"),
    [
        (1280, {"lanes": [2], "queue_depth": [4]}),
        (800, {"lanes": [1, 2, 4], "queue_depth": [4, 8]}),
        (
            1280,
            {
                "lanes": [1, 2, 4], "queue_depth": [2, 4, 8], "gather_outstanding": [8, 16, 32],
                "dma_tags": [2, 4, 8], "dram_channels": [1, 2],
            },
        ),
    ],
    ids=["one", "six", "162"],
)  # fmt: skip
def test_every_picture_is_drawn_inside_its_frame(opened, width, parameters):
    page = opened(*explored_in(**parameters), width=width)
    for picture in PICTURES:
        assert page.locator(f"#{picture} .main-svg text").count() > 0, picture
        assert page.evaluate(OUTSIDE, picture) == [], picture
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("picture", ["front", "roofline"])
def test_a_click_on_a_point_tells_of_it(opened, picture):
    study, points = explored_in(lanes=[1, 2, 4], queue_depth=[4, 8])
    page = opened(study, points)
    assert page.inner_text("#name") == "Point 5: lanes=4 queue_depth=8"
    for number in (2, 0):
        place = page.evaluate(
            """([picture, number]) => {
                const drawn = document.getElementById(picture);
                const trace = drawn.data.find(each => each.customdata?.includes(number));
                const at = trace.customdata.indexOf(number), frame = drawn.getBoundingClientRect();
                const { xaxis, yaxis } = drawn._fullLayout;
                drawn.scrollIntoView({ block: "center" });
                const box = drawn.getBoundingClientRect();
                return [box.left + xaxis._offset + xaxis.d2p(trace.x[at]),
                        box.top + yaxis._offset + yaxis.d2p(trace.y[at])];
            }""",
            [picture, number],
        )
        page.mouse.move(*place)
        page.wait_for_selector(f"#{picture} .hoverlayer >> text='point {number}'")
        page.mouse.click(*place)
        page.wait_for_function(
            "name => document.getElementById('name').textContent === name",
            arg=f"Point {number}: {points[number].name}",
        )
        assert f"point {number}" in page.inner_text("#beside")
        assert page.inner_text("#commands") == f"halfdome explore x.toml --point {number}"
        busy = page.evaluate("document.getElementById('activities').data.find("
                             "each => each.name === 'busy').x[0]")  # fmt: skip
        assert busy == points[number].row["engines"]["load"]["busy"]
        for each in ("front", "roofline"):
            assert page.evaluate(
                """picture => document.getElementById(picture).data
                    .filter(trace => trace.customdata)
                    .flatMap(trace => trace.selectedpoints.map(at => trace.customdata[at]))""",
                each,
            ) == [number]
