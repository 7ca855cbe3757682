"""What sampling the classes costs in accuracy: the same model with the whole softmax, dealt to workers, and sampled.

    python -m benchmarks.sampling            10 K classes of the embedded catalogue, 10 percent of them in use in a step

`whole` is the classifier that every worker holds, `sharded` the same with its rows dealt to the workers, `sampled` that
with some of the classes in each step. Same data, steps, seeds and network; percent of the test split, means over seeds.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from benchmarks import record
from benchmarks.ladder.finetune import answers
from sicot import cluster
from sicot.config import Catalogue, Experiment, Groups, Images, Model, Prepare, Sharding, Synthetic, Train, Visual
from sicot.errors import door
from sicot.prepare import pipeline
from sicot.train import trainer

FOLDER = "runs/benchmarks/sampling"


def main() -> None:
    """Prepare, train each once per seed, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sampling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--classes", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=60_000, help="rows of the catalogue")
    parser.add_argument("--share", type=float, default=0.1, help="share of the classes in use in a step")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    many, few = 10 * options.classes, 1
    ways = {
        "whole": Sharding(above=many),
        "sharded": Sharding(above=few, sampled=0),
        "sampled": Sharding(above=few, sampled=round(options.share * options.classes)),
    }
    with cluster.session(record.cores() + 2):
        prepared = pipeline.prepare(_experiment(options, "data", ways["whole"], 0))
        rows = []
        for way, sharding in ways.items():
            said = []
            for seed in range(options.seeds):
                experiment = _experiment(options, f"{way}-{seed}", sharding, seed)
                place = trainer.fit(experiment, prepared, None, experiment.folder)
                said.append(answers(place, prepared, "test"))
            rows += [{"way": way, "regime": regime, **_mean([each[regime] for each in said])} for regime in said[0]]
    record.record("sampling", rows)


def _experiment(options: argparse.Namespace, name: str, sharding: Sharding, seed: int) -> Experiment:
    synthetic = Synthetic(rows=options.rows, classes=options.classes, imbalance=200, image_size=32)
    return Experiment(
        name=f"{name}-{options.classes}-{options.rows}-{options.epochs}",
        storage=FOLDER,
        catalogue=Catalogue(synthetic=synthetic),
        prepare=Prepare(images=Images(size=32), groups=Groups(head_above=20, tail_below=5)),
        model=Model(dimension=64, visual=Visual(trunk="shufflenet_v2_x0_5")),
        train=Train(
            workers=record.cores(),
            epochs=options.epochs,
            batch_size=64,
            learning_rate=2e-3,
            trunk_rate=1.0,
            precision="fp32",
            sharding=sharding,
            seed=seed,
        ),
    )


def _mean(scores: list[dict[str, Any]]) -> dict[str, float]:
    return {
        name: float(np.mean([100 * score[name] for score in scores]))
        for name in ("top1", "head", "medium", "tail", "macro")
    }


if __name__ == "__main__":
    door(main)
