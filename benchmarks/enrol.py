"""New products without training: `python -m benchmarks.enrol`, or `--data fashion --path <folder> --weights <file>`.

Some products are held out of training and enrolled afterwards from 1, 5 and 10 rows each. Asked are their other rows,
and the test split of the products that were trained, before and after. Beside it, what one would do with a paper in
hand: imprinted rows as they are, in the same softmax as the trained ones (Qi, Brown, Lowe, 2018). Before anything is
enrolled the held-out rows are of unknown products: the first lines say how well the model tells so.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks import record
from sicot import cluster, config, enrol
from sicot.bundle import Bundle, Item, Query
from sicot.catalogue import sources
from sicot.evaluate import metrics
from sicot.evaluate.ask import read
from sicot.prepare import pipeline
from sicot.train import trainer

PRESETS = {"synthetic": "demo", "fashion": "fashion", "zh_mall": "zh_mall"}
REGIMES = ("image", "image_text")
Products = dict[str, list[Query]]


@dataclass(frozen=True)
class Asked:
    """Rows with what the model sees of them: N rows, D features, T words."""

    labels: np.ndarray
    v_ND: Tensor
    words_NT: Tensor

    @classmethod
    def of(cls, base: Bundle, rows: pa.Table, labels: np.ndarray) -> Asked:
        """Rows of a catalogue or a prepared set; those without a photo are left out."""
        kept, v, words = [], [], []
        for start in range(0, rows.num_rows, 128):
            items = list(read(base, rows.slice(start, 128)))
            there = [n for n, item in enumerate(items) if isinstance(item, Item) and item.image_HW3 is not None]
            v.append(base.see(torch.from_numpy(np.stack([items[n].image_HW3 for n in there]))))
            words.append(base.pad([items[n].words for n in there]))
            kept += [start + n for n in there]
        return cls(labels[kept], torch.cat(v), torch.cat(words))

    def logits(self, bundle: Bundle, regime: str) -> Tensor:
        """In one way of asking."""
        return bundle.judge(self.v_ND, self.words_NT if regime == "image_text" else None)[0]


def hold_out(table: pa.Table, classes: int | None, most: int, rows: int, seed: int) -> tuple[pa.Table, pa.Table]:
    """Rows to train on, at most so many, and those of the classes held out, each with twice ``most`` rows or more."""
    random = np.random.default_rng(seed)
    labels = np.array(table["label"].to_pylist())
    names, counts = np.unique(labels, return_counts=True)
    held = random.choice(names[counts >= 2 * most], classes or len(names) // 5, replace=False)
    out = np.isin(labels, held)
    left = np.sort(random.permutation(np.flatnonzero(~out))[:rows])
    return table.take(left).drop_columns("split"), table.take(np.flatnonzero(out))


def train(experiment: config.Experiment, kept: pa.Table, folder: Path) -> tuple[Bundle, Asked]:
    """A bundle that knows the kept products, and its test rows."""
    pq.write_table(kept, folder / "kept.parquet")
    catalogue = config.Catalogue(path=str(folder / "kept.parquet"))
    experiment = experiment.model_copy(update={"catalogue": catalogue, "storage": str(folder)})
    prepared = pipeline.prepare(experiment)
    base = Bundle.load(trainer.fit(experiment, prepared, None, experiment.folder))
    rows = pa.concat_tables([file.read(["image", "tokens", "label"]) for file in prepared.parquet("test")])
    return base, Asked.of(base, rows, np.array(prepared.classes.labels)[rows["label"].to_numpy()])


def before(base: Bundle, new: Asked, old: Asked) -> Iterator[dict[str, Any]]:
    """How well the model tells that it does not know the held-out products."""
    for regime in REGIMES:
        p = torch.cat([asked.logits(base, regime).softmax(1).max(1).values for asked in (old, new)]).numpy()
        target = np.repeat([0, metrics.UNKNOWN], [len(old.labels), len(new.labels)])
        refused = p < base.info.threshold[regime]
        told = metrics.Answers(target, np.zeros((len(p), 1), int), p[:, None], refused)
        yield {
            "what": "before",
            "regime": regime,
            "old": accuracy(base.classes.labels, old.logits(base, regime), old.labels),
            "auroc": metrics.auroc(told),
            "old_refused": float(refused[target == 0].mean()),
            "new_refused": float(refused[target != 0].mean()),
        }


def measure(base: Bundle, new: Asked, old: Asked, products: Products) -> dict[tuple[str, str], Any]:
    """(method, regime) → accuracy on new and old products."""
    made, found = enrol.enrol(base, products), {}
    both_ED = functional.normalize(made.enrolled.rows_2ED.sum(0), dim=1)
    for regime in REGIMES:
        for method in ("enrolled", "imprinted as it is"):
            of = {}
            for name, asked in (("new", new), ("old", old)):
                z_NC = asked.logits(made, regime)
                if method != "enrolled":
                    words_NT = asked.words_NT if regime == "image_text" else None
                    s_NE = base.model.classifier.plain(base.model.feature(asked.v_ND, words_NT)[0], both_ED)
                    z_NC = torch.cat([asked.logits(base, regime), s_NE / base.info.temperature[regime]], 1)
                of[name] = accuracy(made.classes.labels, z_NC, asked.labels)
            found[method, regime] = of
    return found


def draw(
    held: pa.Table, labels: np.ndarray, photos: int, most: int, seed: tuple[int, int]
) -> tuple[Products, np.ndarray]:
    """So many rows of each product to enrol it from, and the indices of the rows to ask about: none of the first."""
    random = np.random.default_rng(seed)
    products, asked = {}, []
    for label in np.unique(labels).tolist():
        own = random.permutation(np.flatnonzero(labels == label))
        products[label] = [query(row) for row in held.take(own[:photos]).to_pylist()]
        asked.append(own[most:])
    return products, np.concatenate(asked)


def accuracy(names: list[str], z_NC: Tensor, labels: np.ndarray) -> float:
    """Share of rows whose first class is the right one."""
    return float((np.array(names)[z_NC.argmax(1).numpy()] == labels).mean())


def main() -> None:
    """Hold out, train, enrol, ask; print and write the table."""
    options = arguments()
    flags = ["--preset", PRESETS[options.data], "--train.epochs", str(options.epochs)]
    flags += ["--catalogue.path", f"{options.path}/*.parquet"] if options.path else []
    flags += ["--model.visual.weights", options.weights, "--model.visual.freeze", "1"] if options.weights else []
    experiment, most = config.load(config.Experiment, flags), max(options.photos)
    with tempfile.TemporaryDirectory(prefix="sicot-benchmark-") as place, cluster.session():
        batches: Any = sources.read(experiment.catalogue).iter_batches(batch_size=None, batch_format="pyarrow")
        kept, held = hold_out(pa.concat_tables(batches), options.hold, most, options.rows, options.seed)
        base, old = train(experiment, kept, Path(place))
        labels = np.array(held["label"].to_pylist())
        new = Asked.of(base, held, labels)
        assert len(new.labels) == len(labels), "a product held out has a photo that cannot be read"
        rows = list(before(base, new, old))
        for photos in options.photos:
            found = []
            for number in range(options.draws):
                products, asked = draw(held, labels, photos, most, (options.seed, number))
                found.append(measure(base, Asked(labels[asked], new.v_ND[asked], new.words_NT[asked]), old, products))
            for method, regime in found[0]:
                mean = {name: float(np.mean([each[method, regime][name] for each in found])) for name in ("new", "old")}
                rows.append({"what": method, "photos": photos, "regime": regime, **mean})
    record.record("enrol", rows)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=PRESETS, default="synthetic", help="catalogue, with the preset that suits it")
    parser.add_argument("--path", help="folder of its Parquet files")
    parser.add_argument("--weights", help="weights of the trunk, which is then frozen")
    parser.add_argument("--hold", type=int, help="products held out of training; default: a fifth")
    parser.add_argument("--photos", type=int, nargs="+", default=[1, 5, 10], help="rows to enrol a product from")
    parser.add_argument("--draws", type=int, default=5, help="draws of these rows, averaged")
    parser.add_argument("--rows", type=int, default=8000, help="rows to train on at most")
    parser.add_argument("--epochs", type=int, default=8, help="passes over them")
    parser.add_argument("--seed", type=int, default=0, help="which products, and which rows of them")
    return parser.parse_args()


def query(row: dict[str, Any]) -> Query:
    """What a row gives for its product."""
    return Query(row["image"], row["title"] or "", tuple(row["tags"] or ()))


if __name__ == "__main__":
    main()
