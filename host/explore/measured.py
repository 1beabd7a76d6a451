"""A point that was measured, for who wants its platform again."""

from pathlib import Path

from halfdome.host.explore import OUTPUT, search, study
from halfdome.host.explore.parameters import Design


def design_of(file: Path, number: int, storage: str | None = None) -> Design:
    """The platform of a point of the study in a file; `storage` is where its points are kept, by
    default in `OUTPUT`.

    Raises `ValueError` for what is no study, has no points there, or not that one.
    """
    made = study.checked(study.read(file), str(file), file.parent)
    if storage is None and not OUTPUT.is_dir():
        raise ValueError(f"{OUTPUT}: holds no points of {file}: run `halfdome explore {file}`")
    results = search.Results(made, storage or search.storage_in(OUTPUT))
    return made.design(results.point(number).values)
