"""Install on Colab what the chapters import, and leave alone what the running kernel has loaded.

    %run ../tools/colab.py

compressai asks for a numpy below 2 and does without; installed with the others it would put an older numpy under a
kernel that has a newer one loaded.  So it comes without its dependencies, which are named here, and numpy stays.
"""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

READER = Path(__file__).resolve().parent.parent / "requirements-reader.txt"
# What compressai imports beyond the reader's list.
ITS_OWN = ["einops>=0.8", "torch-geometric>=2.3,<3", "torchvision"]


def requirements(text: str) -> tuple[list[str], list[str]]:
    """The lines of requirements-reader.txt without remarks: those of compressai and those of the others but numpy."""
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    named = {re.match(r"[\w.-]+", line)[0].lower(): line for line in lines if line}
    del named["numpy"]
    return [named.pop("compressai")], list(named.values())


def main() -> None:
    alone, others = requirements(READER.read_text(encoding="utf-8"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *others, *ITS_OWN, f"numpy=={version('numpy')}"], check=True)
    subprocess.run([*pip, "--no-deps", *alone], check=True)


if __name__ == "__main__":
    main()
