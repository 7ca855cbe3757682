"""What must hold for the tree as a whole: thin doors that explain themselves, a lock that fits, nothing private."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
JOBS = sorted(
    path for folder in ("jobs", "tuning") for path in (ROOT / folder).glob("*.py") if '"__main__"' in path.read_text()
)
DOORS = sorted({*JOBS, *(ROOT / "jobs").glob("[a-z]*.py"), *(ROOT / "serve_apps").glob("[a-z]*.py")})
HOME = re.compile(r"(?<![\w.$}~])/(?:home/(?!ray/)|Users/|root/|work/)[\w.-]+")  # Ray's image has the user ray


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def tracked() -> list[Path]:
    """Files that belong to the project: git's list where this is a checkout, else everything beside caches."""
    if shutil.which("git") and (ROOT / ".git").exists():
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
        )
        files = [ROOT / line for line in listed.stdout.splitlines()]
    else:
        files = [path for path in ROOT.rglob("*") if not any(part.startswith(".") for part in path.parts)]
    return [path for path in files if path.is_file()]


def test_every_step_of_the_way_has_its_door() -> None:
    steps = ["prepare", "train", "evaluate", "register", "predict", "serve", "pipeline"]
    assert {f"jobs.{step}" for step in steps} | {"tuning.search"} <= set(map(module, JOBS))


def test_platform_is_a_source_root_and_never_a_package() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists()  # it would shadow the standard library's platform
    import platform

    assert platform.python_version()


@pytest.mark.parametrize("path", DOORS, ids=module)
def test_a_door_is_short_and_opens_with_its_command(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) < 80
    command = f"python -m {module(path)}" if path in JOBS else f"serve run {module(path)}"
    assert command in (ast.get_docstring(ast.parse(text)) or "")


@pytest.mark.parametrize("path", JOBS, ids=module)
def test_help_of_a_job_names_its_settings(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    with pytest.raises(SystemExit) as end:
        importlib.import_module(module(path)).main()
    assert end.value.code in (0, None)
    assert {"jobs.key": "--file", "jobs.cluster": "--folder"}.get(module(path), "--storage") in capsys.readouterr().out


def test_a_job_starts_as_a_module_outside_of_pytest() -> None:
    done = subprocess.run(
        [sys.executable, "-m", module(JOBS[0]), "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    found = []
    for path in tracked():
        try:
            lines = path.read_text().splitlines()
        except UnicodeDecodeError:
            continue  # a picture
        found += [
            f"{path.relative_to(ROOT)}:{n}: {line.strip()[:100]}"
            for n, line in enumerate(lines, 1)
            if HOME.search(line)
        ]
    assert not found


def test_the_lock_pins_what_pyproject_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    pins = {}
    for name in ("requirements.txt", "requirements-dev.txt"):
        lines = [line for line in (ROOT / name).read_text().splitlines() if line and line[0] not in "#-"]
        for each in map(Requirement, lines):
            assert re.fullmatch(r"==[^+*]+", str(each.specifier)), f"{name}: {each} is not one public version"
            pins[canonical(each.name)] = str(each.specifier)[2:]
    for each in map(Requirement, asked):
        assert each.specifier.contains(pins[canonical(each.name)]), f"{each} is pinned to {pins[canonical(each.name)]}"


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_make_help_lists_the_targets_a_newcomer_needs() -> None:
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = set(re.findall(r"^  make (\w[\w-]*) +\S", shown, re.MULTILINE))
    assert {"demo", "test", "test-all", "lint", "bench", "fashion", "zh_mall", "serve", "mlflow", "clean"} <= listed
