"""The endpoint's benchmark runs, on little load, and its answers are no errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.serving import __main__ as serving

ROOT = Path(__file__).parents[2]


def test_ratios_are_of_the_same_connections() -> None:
    rates = {"ours": 100.0, "uvicorn-eager": 50.0, "echo": 400.0, "engine": 100.0}
    rows = [{"case": case, "connections": c, "rps": rate * c} for case, rate in rates.items() for c in (1, 8)]
    (ours,) = (row for row in rows if row["case"] == "ours" and row["connections"] == 8)
    found = serving.ratios(ours, rows)
    assert found["x uvicorn-eager"] == 2
    assert "x litserve-eager" not in found
    cores = serving.record.cores()
    assert found["of bound"] == pytest.approx(100 * (1 / 400 + 1 / (100 * cores)))
    assert serving.ratios(rows[2], rows) == {}


@pytest.mark.system
@pytest.mark.timeout(300)
def test_every_case_answers(tmp_path: Path) -> None:
    few = ["--seconds", "1", "--connections", "2", "--trunk", "squeezenet1_1"]
    command = [sys.executable, "-m", "benchmarks.serving", *few]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'platform'}:{ROOT}"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    rows = json.loads((tmp_path / "runs/benchmarks/serving.json").read_text())["rows"]
    assert [row["case"] for row in rows] == list(serving.CASES)
    assert all(row["errors"] == 0 and row["rps"] > 0 for row in rows)
