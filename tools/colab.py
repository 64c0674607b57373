"""Install on Colab what the chapters import, and leave alone what the running kernel has loaded.

    %run ../tools/colab.py

compressai asks for a numpy below 2 and does without; installed with the others it would put an older numpy under a
kernel that has a newer one loaded.  So it comes without its dependencies, which are named here, and numpy stays.
"""

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
READER, LOCK = ROOT / "requirements-reader.txt", ROOT / "constraints.txt"
# What compressai imports beyond the reader's list.
ITS_OWN = ["einops>=0.8", "torch-geometric>=2.3,<3", "torchvision"]


def requirements(text: str) -> tuple[list[str], list[str]]:
    """The lines of requirements-reader.txt without remarks: those of compressai and those of the others but numpy."""
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    named = {re.match(r"[\w.-]+", line)[0].lower(): line for line in lines if line}
    del named["numpy"]
    return [named.pop("compressai")], list(named.values())


def pins(text: str) -> list[str]:
    """The lines of constraints.txt for what is not installed; what is stays wherever the ranges let it."""
    return [line for line in text.splitlines() if line[:1].isalnum() and not installed(line.partition("==")[0])]


def installed(name: str) -> str:
    """The version of a package; empty where there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def main() -> None:
    alone, others = requirements(READER.read_text(encoding="utf-8"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    with TemporaryDirectory() as folder:
        lock = Path(folder, "constraints.txt")
        lock.write_text("\n".join(pins(LOCK.read_text(encoding="utf-8"))), encoding="utf-8")
        subprocess.run([*pip, "-c", str(lock), *others, *ITS_OWN, f"numpy=={version('numpy')}"], check=True)
    subprocess.run([*pip, "--no-deps", *alone], check=True)


if __name__ == "__main__":
    main()
