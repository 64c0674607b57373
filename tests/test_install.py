"""Setting up: the environment that is there stays until the new one is whole, and no index has to answer."""

import subprocess
import urllib.error
from types import SimpleNamespace

import install
import pytest


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An environment of yesterday, in a folder of the test's own."""
    monkeypatch.setattr(install, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(install, "OLD", tmp_path / ".venv.old")
    monkeypatch.setattr(install.sys, "argv", ["install.py"])
    monkeypatch.delenv("LOCK", raising=False)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "yesterday").touch()
    return tmp_path


@pytest.fixture
def calls(monkeypatch):
    """What pip was told, by a pip that does nothing."""
    told = []
    monkeypatch.setattr(install, "pip", lambda *arguments: told.append(arguments))
    monkeypatch.setattr(install.venv, "create", lambda path, **options: path.mkdir())
    return told


def test_a_new_environment_replaces_the_old_one(place, calls, monkeypatch):
    monkeypatch.setattr(install, "wants_cpu_index", lambda arguments: False)
    install.main()
    assert [path.name for path in place.iterdir()] == [".venv"]
    assert [path.name for path in (place / ".venv").iterdir()] == ["ready"]
    assert [call[0] for call in calls] == ["install", "install", "check"]
    assert calls[1] == ("install", "-r", named("requirements.txt"), "-c", named("constraints.txt"))


def named(file: str) -> str:
    return str(install.ROOT / file)


@pytest.mark.parametrize(("lock", "told"), [("", []), ("lowest.txt", ["-c", named("lowest.txt")])])
def test_another_lock_or_none(place, calls, monkeypatch, lock, told):
    monkeypatch.setattr(install, "wants_cpu_index", lambda arguments: False)
    monkeypatch.setenv("LOCK", lock)
    install.main()
    assert list(calls[1]) == ["install", "-r", named("requirements.txt"), *told]


def test_the_tests_packages_come_on_top(place, calls, monkeypatch):
    monkeypatch.setattr(install, "wants_cpu_index", lambda arguments: False)
    monkeypatch.setattr(install.sys, "argv", ["install.py", "--dev", "--no-cache-dir"])
    install.main()
    assert {path.name for path in (place / ".venv").iterdir()} == {"yesterday", "ready-dev"}
    assert calls == [
        ("install", "--no-cache-dir", "-r", named("requirements-dev.txt"), "-c", named("constraints.txt")),
        ("check",),
    ]


def test_tests_packages_that_fail_leave_no_stamp(place, monkeypatch):
    def fail(*arguments):
        raise subprocess.CalledProcessError(1, "pip")

    monkeypatch.setattr(install, "pip", fail)
    monkeypatch.setattr(install, "wants_cpu_index", lambda arguments: False)
    monkeypatch.setattr(install.sys, "argv", ["install.py", "--dev"])
    with pytest.raises(subprocess.CalledProcessError):
        install.main()
    assert [path.name for path in place.rglob("*")] == [".venv", "yesterday"]


@pytest.mark.parametrize("error", [subprocess.CalledProcessError(1, "pip"), KeyboardInterrupt])
def test_what_fails_leaves_the_old_environment(place, calls, monkeypatch, error):
    def fail(arguments):
        raise error

    monkeypatch.setattr(install, "wants_cpu_index", fail)
    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        install.main()
    assert [path.name for path in place.rglob("*")] == [".venv", "yesterday"]


def test_a_killed_installation_is_taken_back(place, calls, monkeypatch):
    (place / ".venv").rename(place / ".venv.old")
    (place / ".venv").mkdir()  # half of one
    monkeypatch.setattr(install, "install", lambda arguments: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space left"):
        install.main()
    assert [path.name for path in place.rglob("*")] == [".venv", "yesterday"]


def test_another_python_is_one_line_and_touches_nothing(place, monkeypatch):
    old = SimpleNamespace(version_info=(3, 9, 1), executable="python3.9", argv=["install.py"], exit=install.sys.exit)
    monkeypatch.setattr(install, "sys", old)
    with pytest.raises(SystemExit, match=r"3\.10 to 3\.13 is needed, python3\.9 is 3\.9"):
        install.main()
    assert [path.name for path in place.rglob("*")] == [".venv", "yesterday"]


def on(monkeypatch, system, machine, opened):
    monkeypatch.setattr(install.sys, "platform", system)
    monkeypatch.setattr(install.platform, "machine", lambda: machine)
    monkeypatch.setattr(install.urllib.request, "urlopen", opened)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_torch_comes_without_cuda_where_its_index_answers(monkeypatch, capsys, machine):
    on(monkeypatch, "linux", machine, lambda address, timeout: SimpleNamespace(close=lambda: None))
    assert install.wants_cpu_index([]) and capsys.readouterr().out == ""


def test_an_index_that_does_not_answer_is_one_line(monkeypatch, capsys):
    def unreachable(address, timeout):
        assert timeout <= 5
        raise urllib.error.URLError("no network")

    on(monkeypatch, "linux", "x86_64", unreachable)
    assert not install.wants_cpu_index([])
    assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_elsewhere_pypi_has_no_cuda(monkeypatch, system):
    on(monkeypatch, system, "x86_64", None)
    assert not install.wants_cpu_index([])


def test_an_index_that_breaks_off_is_done_without(place, calls, monkeypatch, capsys):
    def pip(*arguments):
        calls.append(arguments)
        if install.CPU_INDEX in arguments:
            raise subprocess.CalledProcessError(1, "pip")

    monkeypatch.setattr(install, "pip", pip)
    monkeypatch.setattr(install, "wants_cpu_index", lambda arguments: True)
    install.main()
    tried = [install.CPU_INDEX in call for call in calls if str(install.ROOT / "requirements.txt") in call]
    assert tried == [True, False] and (place / ".venv" / "ready").exists()
