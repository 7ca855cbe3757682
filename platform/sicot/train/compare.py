"""Is it worth it? SICoT against its visual-only baseline: same steps, photos, schedule and seed, words or none."""

from __future__ import annotations

from typing import Any

import numpy as np
import ray
import torch
from scipy import stats

from sicot import cluster, storage
from sicot.config import Experiment
from sicot.prepare.prepared import PreparedSet
from sicot.train import progress, worker


def with_seed(experiment: Experiment, seed: int) -> Experiment:
    """The experiment as one process trains it with another seed: its global batch in one."""
    train = experiment.train
    update = {"seed": seed, "workers": 1, "batch_size": train.batch_size * train.workers}
    return experiment.model_copy(update={"train": train.model_copy(update=update)})


def further_seeds(experiment: Experiment, prepared: PreparedSet, seeds: list[int], note: str) -> list[dict[str, Any]]:
    """Train both arms once per seed, on one CPU or GPU each, side by side.

    Args:
        note: JSON file that keeps finished results, so that an interrupted comparison goes on.

    Returns:
        One ``{"seed", "sicot", "visual"}`` per seed, the arms holding :func:`sicot.train.worker.validate`'s
        figures on the test split.
    """
    arms = {"sicot": experiment.model, "visual": experiment.model.visual_only()}
    gpus = int(cluster.has_gpus(experiment.train.gpu))
    kept = storage.read_json(note) if storage.exists(note) else {}
    jobs = {}
    for seed in seeds:
        for arm, model in arms.items():
            name, settings = f"{arm}/{seed}", with_seed(experiment.model_copy(update={"model": model}), seed)
            if name not in kept:
                work = trial.options(num_gpus=gpus).remote(name, settings.model_dump(mode="json"), prepared.root)
                jobs[work] = name
    waiting = list(jobs)
    while waiting:
        done, waiting = ray.wait(waiting)
        name = jobs[done[0]]
        kept[name] = ray.get(done[0])
        storage.write_json(note, kept)
        counted = f"{len(jobs) - len(waiting)} of {len(jobs)}"
        print(
            f"comparison {counted}: {name}  photo {kept[name]['image/top1']:.1%}  tail {kept[name]['image/tail']:.1%}"
        )
    return [{"seed": seed, "sicot": kept[f"sicot/{seed}"], "visual": kept[f"visual/{seed}"]} for seed in seeds]


@ray.remote(num_cpus=1, max_retries=2)
def trial(name: str, settings: dict[str, Any], prepared: str) -> dict[str, float]:
    """Train in this process, and measure on the test split."""
    experiment, data = Experiment(**settings), PreparedSet.open(prepared)
    said = progress.Lines(f"{name}: ", experiment.train.epochs, 10)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # Ray shows a task the GPUs it asked for
    model = worker.fit(experiment, data, lambda metrics, save: None, device=device, progress=said.step)
    return worker.validate(model, data, experiment.evaluate.batch_size, split="test")


def paired_difference(differences: list[float]) -> dict[str, float | None]:
    """Mean over seeds and the half-width of its 95 % interval (Student's t); one seed has no interval (None)."""
    values = np.asarray(differences)
    half = None
    if len(values) > 1:
        half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return {"mean": float(values.mean()), "ci95": half, "seeds": len(values)}
