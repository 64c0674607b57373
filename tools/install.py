"""Make .venv with all that the book needs: what ``make`` does first, and what Windows does without make.

    python tools/install.py [--dev] [MORE ARGUMENTS FOR PIP]

An environment that is there stays until the new one is whole; --dev adds to it what the tests need.  Of each package
comes the version in constraints.txt, or in the file that the variable LOCK names; with LOCK= the newest that the
requirements allow.  On Linux torch comes without CUDA, from PyTorch's own index if that can be reached; otherwise, and
wherever that goes wrong, everything comes from PyPI.
"""

import os
import platform
import shutil
import subprocess
import sys
import time
import urllib.request
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV, OLD = ROOT / ".venv", ROOT / ".venv.old"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
SECONDS = 5  # that the index has to answer


def main():
    here = sys.version_info[:2]
    if not (3, 10) <= here <= (3, 13):
        found = ".".join(map(str, here))
        sys.exit(f"Python 3.10 to 3.13 is needed, {sys.executable} is {found}; try make PYTHON=python3.12")
    if sys.argv[1:2] == ["--dev"]:
        return add_tests_packages(sys.argv[2:])
    if (VENV / "ready").exists():
        remove(OLD)
    if OLD.exists():  # an installation was killed: its environment is half, the one before it is whole
        remove(VENV)
        OLD.rename(VENV)
    if VENV.exists() or VENV.is_symlink():
        VENV.rename(OLD)
    try:
        install(sys.argv[1:])
    except BaseException:
        remove(VENV)
        if OLD.exists():
            OLD.rename(VENV)
            print("The environment that was there is there still.")
        raise
    remove(OLD)


def install(arguments):
    print("1 of 4: make .venv, a few seconds", flush=True)
    try:
        venv.create(VENV, with_pip=True, symlinks=os.name != "nt")
    except subprocess.CalledProcessError:
        sys.exit(f"{sys.executable} can't make an environment; on Debian and Ubuntu: apt install python3-venv")
    print("2 of 4: pip itself, a few seconds", flush=True)
    pip("install", "--upgrade", "pip")
    print("3 of 4: the packages of requirements.txt, in all 2 to 10 minutes, most of them for torch", flush=True)
    install_list("requirements.txt", arguments)
    print("4 of 4: look whether they fit together", flush=True)
    pip("check")
    (VENV / "ready").touch()


def add_tests_packages(arguments):
    print("What the tests need beyond the book, half a minute to 2 minutes", flush=True)
    install_list("requirements-dev.txt", arguments)
    pip("check")
    (VENV / "ready-dev").touch()


def install_list(name, arguments):
    """The packages of a list, in the versions of the lock."""
    lock = os.environ.get("LOCK", "constraints.txt")
    requirements = [*arguments, "-r", str(ROOT / name), *(["-c", str(ROOT / lock)] if lock else [])]
    cpu = ["--extra-index-url", CPU_INDEX] if wants_cpu_index(arguments) else []
    try:
        pip("install", *cpu, *requirements)
    except subprocess.CalledProcessError:
        if not cpu:
            raise
        print("That went wrong with the index of torch without CUDA: once more from PyPI alone", flush=True)
        pip("install", *requirements)


def wants_cpu_index(arguments):
    """Whether torch comes with CUDA from PyPI, and can be had without."""
    own_index = any(argument.split("=")[0] in ("--index-url", "-i") for argument in arguments)
    if own_index or sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        return False
    try:
        urllib.request.urlopen(CPU_INDEX + "/torch/", timeout=SECONDS).close()
        return True
    except (OSError, ValueError):
        print("The index of torch without CUDA does not answer: torch comes from PyPI, with CUDA: 4 GB more")
        return False


def pip(*arguments):
    """Run pip in .venv, and show on one line what it is at; where nobody watches, on a new line every half minute."""
    command, lines, shown = [str(PYTHON), "-m", "pip", "--no-input", *arguments], [], time.monotonic()
    # On Windows a compiler's output need not be in the encoding that Python expects.
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "backslashreplace"}
    with subprocess.Popen(command, **how) as process:
        for line in process.stdout:
            lines.append(line)
            if sys.stdout.isatty():
                width = shutil.get_terminal_size().columns - 1
                print("\r" + line.strip()[:width].ljust(width), end="", flush=True)
            elif line.strip() and time.monotonic() - shown > 30 and not line.startswith("WARNING"):
                shown = time.monotonic()
                print("   " + line.strip()[:110], flush=True)
    if sys.stdout.isatty():
        print("\r" + " " * (shutil.get_terminal_size().columns - 1), end="\r", flush=True)
    if process.returncode:
        print("".join(lines[-12:]), file=sys.stderr)
        raise subprocess.CalledProcessError(process.returncode, "pip " + arguments[0])


def remove(path):
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped")
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"tools/install.py: {error}")
