"""Other ways to search: the Pareto front, screening on cached features, within a budget, on shares of a machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run

from sicot import config, storage
from sicot.config import Experiment, Tune
from sicot.errors import UserError
from sicot.model.visual import Visual
from sicot.search import tuner
from sicot.search.book import Book, key
from sicot.search.space import apply, standing
from tests.builders import experiment, prepared_set
from tuning.space import SPACE

pytestmark = pytest.mark.timeout(600)


def settings(root: Path, rows: int = 12, **tune: object) -> Experiment:
    """An experiment whose prepared set is there."""
    made = experiment(root).model_copy(update={"tune": Tune(**tune)})  # type: ignore[arg-type]
    if not (root / "test" / "prepared").exists():
        prepared_set(root / "test" / "prepared", rows_per_class=rows)
    return made


def runs(asked: Experiment) -> dict[str, list[Run]]:
    """MLflow's runs by kind."""
    client, found = MlflowClient(asked.tracking_uri), {}  # type: ignore[var-annotated]
    for run in client.search_runs([each.experiment_id for each in client.search_experiments()], max_results=1000):
        assert run.info.status != "RUNNING"
        found.setdefault(run.data.tags["sicot.kind"], []).append(run)
    return found


def test_a_pareto_search_stops_nobody_and_every_point_of_its_front_can_be_trained(
    tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = settings(tmp_path, objective="pareto", trials=5, epochs=2, grace=1)
    book = tuner.search(asked, SPACE)
    assert [trial.state for trial in book.trials] == ["finished"] * 5
    assert all(0 <= score <= 1 for trial in book.trials for score in trial.scores)
    files = {path.stem: path for path in Path(asked.folder, "front").glob("*.yaml")}
    assert set(files) == {str(trial.number) for trial in book.front}
    for trial in book.front:
        one = config.load(Experiment, ["--config", str(files[str(trial.number)])])
        assert standing(trial.point, one) == trial.point
        assert one.name == f"test-front-{trial.number}"
    best = config.load(Experiment, ["--config", f"{asked.folder}/best.yaml"])
    assert book.best in book.front
    assert standing(book.best.point, best) == book.best.point  # type: ignore[union-attr]
    (parent,) = runs(asked)["search"]
    assert parent.data.tags["sicot.front"] == ", ".join(str(trial.number) for trial in book.front)
    artefacts = Path(parent.info.artifact_uri)
    assert (artefacts / "plots" / "front.png").stat().st_size > 5000
    assert len(list((artefacts / "front").glob("*.yaml"))) == len(book.front)
    child = runs(asked)["trial"][0]
    assert {"objective", "overall", "tail"} <= set(child.data.metrics)
    assert set(child.data.params) == set(book.trials[0].point)  # and not the whole experiment a hundred times
    assert "the front: nothing found beats these" in capsys.readouterr().out


def test_screening_on_features_then_the_best_in_full(
    tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = settings(tmp_path, screen=2, trials=6, epochs=4, grace=2, folds=2)
    torch.save(Visual(asked.model.visual, 32, 2).trunk.state_dict(), tmp_path / "trunk.pt")
    asked = apply(asked, {"model.visual.weights": os.path.relpath(tmp_path / "trunk.pt")})  # also to each trial
    book = tuner.search(asked, SPACE)
    said = capsys.readouterr().out
    assert "on cached features of the trunk" in said
    assert "on 2 folds of training rows" in said
    assert "beside its training, a trial took" in said
    kept = f"{asked.folder}/search/screened.json"
    screened = Book(kept, storage.read_json(kept)["settings"])
    assert len(screened.ended) == 6
    first = screened.trials[0].point
    better = [trial.point for trial in screened.ranked if trial.point != first][:2]
    assert book.trials[0].point == first
    assert {key(trial.point) for trial in book.trials} == {key(point) for point in (first, *better)}
    assert all(len(trial.epochs) == asked.train.epochs for trial in book.trials)  # the real settings
    assert {trial.state for trial in book.trials} == {"finished"}
    kinds = runs(asked)
    assert (len(kinds["screening"]), len(kinds["trial"]), len(kinds["search"])) == (6, len(book.trials), 1)
    assert kinds["search"][0].data.metrics["overhead_s"] > 0
    tuner.search(asked, SPACE)
    assert "already searched" in capsys.readouterr().out
    more = asked.model_copy(update={"tune": asked.tune.model_copy(update={"screen": 3})})
    again = tuner.search(more, SPACE)
    assert again.trials[: len(book.trials)] == book.trials  # none is trained again


def test_a_budget_cuts_the_search_off_and_more_of_it_goes_on(tmp_path: Path, ray_cluster: None) -> None:
    asked = settings(tmp_path, trials=3, epochs=3, minutes=0.001)
    with pytest.raises(UserError, match=r"has used .* of 0\.001 minutes before trial 1, .*, has ended"):
        tuner.search(asked, SPACE)
    runs(asked)  # none is left running
    with pytest.raises(UserError, match=r"has used .* minutes: give more of it, or --fresh"):
        tuner.search(asked, SPACE)
    more = asked.model_copy(update={"tune": asked.tune.model_copy(update={"minutes": 30.0})})
    book = tuner.search(more, SPACE)
    assert len(book.ended) == 3
    assert 0 < book.spent.seconds < 1800
    less = asked.model_copy(update={"tune": asked.tune.model_copy(update={"trials": 9})})
    assert tuner.search(less, SPACE).trials == book.trials  # the time it is given is used up: shown again
    kinds = runs(asked)
    assert [run.info.status for run in kinds["search"]] == ["FINISHED"]
    assert len(kinds["trial"]) == 3


def test_what_does_not_fit_is_refused_before_anything_starts(tmp_path: Path, ray_cluster: None) -> None:
    def refused(match: str, gpu: bool | None = None, **tune: object) -> None:
        asked = settings(tmp_path, **tune)
        asked = asked.model_copy(update={"train": asked.train.model_copy(update={"gpu": gpu})})
        with pytest.raises(UserError, match=match):
            tuner.search(asked, SPACE)

    refused("2 trials at a time needs 41 CPUs", cpus_per_trial=20)
    refused("4 trials at a time needs 1 GPUs, the cluster has 0", gpu=True, gpus_per_trial=0.25, concurrent=4)
    refused(r"tune\.gpu_hours: trials use no GPU here", gpu_hours=1)
    assert not (tmp_path / "mlflow.db").exists()


def test_shares_of_gpus_must_add_up_to_whole_ones() -> None:
    code = """
import sicot, ray
from sicot.config import Tune
from sicot.errors import UserError
from sicot.search.work import require
ray.init(address="local", num_cpus=8, num_gpus=2, object_store_memory=100_000_000, logging_level="ERROR")
require(Tune(concurrent=4), 0.5)
require(Tune(concurrent=6, cpus_per_trial=0.5), 0.33)
for tune, gpus in ((Tune(concurrent=3), 0.6), (Tune(concurrent=2, cpus_per_trial=4), 0.5)):
    try:
        require(tune, gpus)
    except UserError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    shares, cpus = [line for line in done.stdout.splitlines() if "needs" in line]
    assert "3 trials at a time, of 0.6 GPUs each, 1 to a GPU, needs 3 GPUs, the cluster has 2" in shares
    assert "needs 9 CPUs, the cluster has 8" in cpus


@pytest.mark.parametrize(
    "wrong", [{"gpus_per_trial": 1.5}, {"cpus_per_trial": 2.5}, {"minutes": 0}, {"screen": -1}, {"folds": 3}]
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=rf"tune.*{next(iter(wrong))}"):
        config.load(Experiment, [f"--tune.{name}={value}" for name, value in wrong.items()])
