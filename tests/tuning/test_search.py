"""A whole search on Ray: its first trial, what it leaves, and what the same command does the second time."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from sicot import config, storage
from sicot.config import Experiment, Tune
from sicot.errors import UserError
from sicot.prepare.prepared import PreparedSet
from sicot.search import tuner
from sicot.search.book import Book, key
from sicot.search.space import distributions, standing
from sicot.search.trial import scores
from tests.builders import experiment, prepared_set
from tuning.space import SPACE

TRIALS, EPOCHS = 4, 3


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    root = tmp_path_factory.mktemp("search")
    prepared_set(root / "test" / "prepared", rows_per_class=12)
    tune = Tune(trials=TRIALS, epochs=EPOCHS, grace=1, concurrent=2)
    return experiment(root).model_copy(update={"tune": tune})


@pytest.fixture(scope="module")
def book(settings: Experiment, ray_cluster: None) -> Book:
    return tuner.search(settings, SPACE)


def runs(settings: Experiment) -> list[Run]:
    client = MlflowClient(settings.tracking_uri)
    return list(client.search_runs([each.experiment_id for each in client.search_experiments()]))


def test_the_first_trial_is_the_experiment_as_it_stands_and_runs_to_the_end(settings: Experiment, book: Book) -> None:
    assert book.trials[0].point == standing(distributions(SPACE, settings), settings)
    assert book.trials[0].state == "finished"
    assert len({key(trial.point) for trial in book.trials}) == TRIALS


def test_every_trial_ends_and_stopped_ones_trained_less(book: Book) -> None:
    assert [trial.number for trial in book.trials] == list(range(1, TRIALS + 1))
    for trial in book.trials:
        epochs = [epoch["epoch"] for epoch in trial.epochs]
        assert epochs == list(range(1, len(epochs) + 1))
        assert trial.state == ("finished" if len(epochs) == EPOCHS else "stopped")


def test_the_best_is_trained_to_the_end_and_not_worse_than_the_first(book: Book) -> None:
    best, first = book.best, book.trials[0]
    assert best is not None
    assert best.state == "finished"
    assert (best.objective or 0) >= (first.objective or 0) > 0


def test_the_best_experiment_is_a_config_that_training_takes(settings: Experiment, book: Book) -> None:
    found = config.load(Experiment, ["--config", f"{settings.folder}/best.yaml"])
    assert book.best is not None
    assert standing(book.best.point, found) == book.best.point
    assert (found.name, found.storage) == ("test-best", settings.storage)
    assert found.train.epochs == settings.train.epochs  # trials may be shorter


def test_mlflow_has_a_run_for_the_search_and_one_nested_for_each_trial(settings: Experiment, book: Book) -> None:
    (parent,) = [run for run in runs(settings) if run.data.tags["sicot.kind"] == "search"]
    children = [run for run in runs(settings) if run.data.tags["sicot.kind"] == "trial"]
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert len(children) == TRIALS
    for child in children:
        trial = book.trials[int(child.data.tags["sicot.trial"]) - 1]
        assert child.data.metrics["objective"] == pytest.approx(trial.objective)
        assert float(child.data.params["model.loss.tau"]) == trial.point["model.loss.tau"]
        assert ("sicot.stopped" in child.data.tags) == (trial.state == "stopped")
    kept = Path(parent.info.artifact_uri)
    assert json.loads((kept / "trials.json").read_text())["trials"][0]["number"] == 1
    assert (kept / "best.yaml").exists()
    assert (kept / "plots" / "best_so_far.png").stat().st_size > 5000


def test_no_checkpoint_of_a_finished_trial_is_left(settings: Experiment, book: Book) -> None:
    assert not list(Path(settings.folder, "search", "checkpoints").glob("*"))


def test_the_same_command_shows_a_finished_search_at_once(
    settings: Experiment, book: Book, capsys: pytest.CaptureFixture[str]
) -> None:
    before, begun = len(runs(settings)), time.monotonic()
    again = tuner.search(settings, SPACE)
    assert time.monotonic() - begun < 2
    assert again.trials == book.trials
    assert len(runs(settings)) == before
    assert "already searched" in capsys.readouterr().out


def test_a_search_that_was_killed_goes_on_with_the_trial_it_was_at(settings: Experiment, book: Book) -> None:
    """A book as a killed search leaves it: the second trial is still running, the later ones were never begun."""
    root = Path(settings.folder).parent / "killed"
    killed = settings.model_copy(update={"name": "killed", "tune": settings.tune.model_copy(update={"trials": 3})})
    prepared_set(root / "prepared", rows_per_class=12)
    kept = json.loads(Path(book.file).read_text())
    first, second = kept["trials"][:2]
    cut = {**second, "state": "running", "epochs": second["epochs"][:1]}
    storage.write_json(f"{root}/search/trials.json", {**kept, "trials": [first, cut]})
    done = tuner.search(killed, SPACE)
    assert len(done.ended) == 3
    assert done.trials[0].model_dump() == first  # not trained again
    assert done.trials[1].point == second["point"]
    assert done.trials[2].point not in (first["point"], second["point"])


def test_a_failed_first_trial_is_told_in_a_line_and_run_again_by_the_next_start(
    settings: Experiment, ray_cluster: None
) -> None:
    one = settings.tune.model_copy(update={"trials": 1, "epochs": 1})
    failing = settings.model_copy(update={"name": "failing", "tune": one})
    data = prepared_set(Path(failing.folder) / "prepared", rows_per_class=6)
    rows = Path(data.uris("train")[0])
    hidden = rows.rename(rows.with_suffix(".hidden"))
    with pytest.raises(UserError, match=r"trial 1, the experiment as it stands, failed: .*00000\.parquet"):
        tuner.search(failing, SPACE)
    mine = [run for run in runs(settings) if run.data.tags["sicot.name"].startswith("failing")]
    assert [run.info.status for run in mine] == ["FAILED", "FAILED"]
    hidden.rename(rows)
    assert [trial.state for trial in tuner.search(failing, SPACE).trials] == ["finished"]


def test_other_settings_are_not_mixed_into_a_search(settings: Experiment, book: Book) -> None:
    other = settings.model_copy(update={"train": settings.train.model_copy(update={"learning_rate": 0.5})})
    with pytest.raises(UserError, match=r"other settings.*--fresh"):
        tuner.search(other, SPACE)


def test_more_trials_than_places_are_refused_before_anything_starts(settings: Experiment, ray_cluster: None) -> None:
    many = settings.model_copy(update={"name": "many", "tune": settings.tune.model_copy(update={"concurrent": 40})})
    prepared_set(Path(many.folder) / "prepared", rows_per_class=4)
    with pytest.raises(UserError, match="40 trials at a time needs 41 CPUs"):
        tuner.search(many, SPACE)
    assert not [run for run in runs(settings) if run.data.tags["sicot.name"] == "many"]


def test_validation_without_tail_rows_is_searched_by_macro_accuracy(tmp_path: Path) -> None:
    data = prepared_set(tmp_path, rows_per_class=4)
    assert tuner.rare(data) == ("tail", (24, 4))
    table = storage.read_table(data.uris("val")[0])
    storage.write_table(data.uris("val")[0], table.filter([label != 5 for label in table["label"].to_pylist()]))
    assert tuner.rare(PreparedSet.open(data.root)) == ("macro", (20, 0))


def test_the_objective_weighs_tail_and_ways_of_asking() -> None:
    metrics = {"val/image/top1": 0.5, "val/image/tail": 0.1, "val/image_text/top1": 0.9, "val/image_text/tail": 0.7}
    assert scores(metrics, 0.25, "tail") == pytest.approx({"overall": 0.7, "tail": 0.4, "objective": 0.625})
    assert scores(metrics, 1.0, "tail")["objective"] == pytest.approx(0.4)
    alone = {"val/image/top1": 0.5, "val/image/macro": 0.3}
    assert scores(alone, 0.5, "macro") == pytest.approx({"overall": 0.5, "tail": 0.3, "objective": 0.4})


def test_a_local_cluster_has_room_for_the_trials() -> None:
    assert tuner.places(Experiment(tune=Tune(concurrent=5))) > 5
