"""What a search leaves: the best settings, those of the front, and the trials, as files and in its MLflow run."""

from __future__ import annotations

from sicot import storage
from sicot.config import Experiment
from sicot.search.book import Book
from sicot.search.space import Point, apply
from sicot.track import Run


def best_file(experiment: Experiment) -> str:
    """Where the best settings are."""
    return f"{experiment.folder}/best.yaml"


def front_folder(experiment: Experiment) -> str:
    """Where the settings of the front's trials are, each by its number."""
    return f"{experiment.folder}/front"


def found(experiment: Experiment, point: Point, name: str) -> Experiment:
    """The experiment to train with a trial's values, under a name of its own."""
    return apply(experiment.model_copy(update={"name": f"{experiment.name[: 63 - len(name)]}-{name}"}), point)


def write(experiment: Experiment, book: Book, run: Run) -> None:
    """Write the files and tell MLflow; the first trial and the best one have ended."""
    first, best = book.trials[0], book.best
    assert best is not None
    chosen = found(experiment, best.point, "best")
    storage.write_bytes(best_file(experiment), chosen.dump())
    run.dict(chosen.model_dump(mode="json"), "best.yaml")
    if experiment.tune.objective == "pareto":
        storage.delete_folder(front_folder(experiment))
        for trial in book.front:
            one = found(experiment, trial.point, f"front-{trial.number}")
            storage.write_bytes(f"{front_folder(experiment)}/{trial.number}.yaml", one.dump())
            run.dict(one.model_dump(mode="json"), f"front/{trial.number}.yaml")
        run.tags({"sicot.front": ", ".join(str(trial.number) for trial in book.front)})
    objective = {"first": first.epochs[-1]["objective"], "best": best.epochs[-1]["objective"]}
    run.metrics({"objective": objective, "gain": objective["best"] - objective["first"]})
    run.tags({"sicot.best": best.number})
    run.dict(book.dump(), "trials.json")
