"""The ladder's data sets, prepared once for each text column."""

from __future__ import annotations

import csv
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sicot import config
from sicot.errors import UserError
from sicot.prepare import pipeline
from sicot.prepare.prepared import PreparedSet

COLUMNS = {"fashion": ("title", "title_nolabel"), "grocery_lt": ("title",), "synthetic": ("title",)}
"""Data set → the text columns that models are trained on, the catalogue's own title first."""


def prepare(name: str, folder: str, size: int, storage: str) -> dict[str, PreparedSet]:
    """Prepared sets by text column; needs a running Ray session.

    Args:
        name: one of `COLUMNS`.
        folder: where ``fashion/`` and ``grocery/`` lie; of no meaning for ``synthetic``.
        size: side of the photos, pixels.
        storage: where to write.
    """
    groups = config.Groups()
    catalogue = config.Catalogue(synthetic=config.Synthetic(rows=4800, classes=120, imbalance=100.0))
    if name == "fashion":
        catalogue = config.Catalogue(path=f"{_folder(folder, name)}/*.parquet")
    elif name == "grocery_lt":
        groups = config.Groups(head_above=20, tail_below=5)
        catalogue = config.Catalogue(path=str(_long_tailed(Path(_folder(folder, "grocery")), Path(storage))))
    sets = {}
    for column in COLUMNS[name]:
        experiment = config.Experiment(
            name=f"{name}-{column}-{size}",
            storage=storage,
            catalogue=catalogue.model_copy(update={"columns": config.Columns(title=column)}),
            prepare=config.Prepare(
                images=config.Images(size=size), text=config.Text(pairs=True, max_words=48), groups=groups
            ),
        )
        sets[column] = pipeline.prepare(experiment)
    return sets


def _folder(folder: str, name: str) -> str:
    if not folder or not (Path(folder) / name).is_dir():
        raise UserError(f"--folder: there is no folder {name} in {folder or 'it'!r}: name the folder of product data")
    return f"{folder}/{name}"


def _long_tailed(source: Path, storage: Path) -> Path:
    """The grocery photos with the training rows of its long-tailed index alone, as a catalogue of its own."""
    target = storage / "grocery_lt"
    target.mkdir(parents=True, exist_ok=True)
    with (source / "train_lt_ir50.csv").open() as file:
        kept = pa.array([row["id"] for row in csv.DictReader(file)])
    for split in ("train", "val", "test"):
        table = pq.read_table(source / f"{split}.parquet", columns=["id", "image", "title", "tags", "label", "split"])
        if split == "train":
            table = table.filter(pa.compute.is_in(table["id"], kept))
        if not (target / f"{split}.parquet").exists():
            pq.write_table(table, target / f"{split}.part", compression="none")
            (target / f"{split}.part").rename(target / f"{split}.parquet")
    return target
