"""Code in the documents runs as it is written."""

import re
from pathlib import Path

import pytest

import halfdome.host.platform  # noqa: F401  pytester unloads what it is first to load
from halfdome.sim.build.cache import cache_dir

ROOT = Path(__file__).parent.parent
CACHE = cache_dir()
BLOCKS = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]


OPTIONAL = ("onnx", "onnxruntime", "onnxscript", "skl2onnx", "torch")
"""Libraries of models, which a document may import."""


@pytest.mark.slow
# Of PyTorch and scikit-learn, told by what they call.
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.filterwarnings("ignore::FutureWarning:copyreg")
@pytest.mark.parametrize("block", BLOCKS)
def test_code_in_documents_runs(block, request, tmp_path, monkeypatch):
    if re.search(rf"^(import|from) ({'|'.join(OPTIONAL)})\b", block, re.MULTILINE):
        for library in OPTIONAL:
            pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)  # for what it writes
    if not re.search(r"^def test_\w+\(\w", block, re.MULTILINE):
        exec(compile(block, "document", "exec"), {"__name__": "document"})
        return
    # Tests that take fixtures run as a test file of their own, in a folder of their own.
    monkeypatch.setenv("HALFDOME_CACHE", str(CACHE))
    pytester = request.getfixturevalue("pytester")
    pytester.makepyfile(test_document=block)
    tests = len(re.findall(r"^def test_", block, re.MULTILINE))
    pytester.runpytest("--strict-markers", "--renew-cycles").assert_outcomes(passed=tests)
    pytester.runpytest("--strict-markers").assert_outcomes(passed=tests)


def test_links_between_documents_lead_somewhere():
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for target, anchor in re.findall(
            r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text()
        ):
            to = page.parent / target if target else page
            assert to.exists(), f"{page.name} links to {target}"
            assert not anchor or anchor in anchors(to), f"{page.name} links to {target}#{anchor}"


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}
