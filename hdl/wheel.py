"""Hardware tools that come as WebAssembly wheels from PyPI."""

import importlib.util
import subprocess
import sys
from pathlib import Path


class ToolError(RuntimeError):
    """A tool is missing or refused its input. The message holds the end of its own words."""


def run_wheel(tool: str, arguments: list[str], folder: Path) -> None:
    """Runs `yowasp_<tool>` in `folder`, the only part of the file system that it may touch.

    Raises `ToolError`.
    """
    wheel = f"yowasp_{tool}"
    if importlib.util.find_spec(wheel) is None:
        raise ToolError(f"{wheel} is not installed: `pip install {wheel.replace('_', '-')}`")
    call = f"import sys, {wheel}; sys.exit({wheel}.run_{tool}(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", call, *arguments], cwd=folder, capture_output=True, text=True
    )
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise ToolError(f"{tool} {' '.join(arguments)} failed:\n{last}")
