"""Small things to test with: a prepared set and a bundle, made on disk in well under a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from safetensors.numpy import save
from torch import Tensor
from torch.nn import functional

from sicot import bundle, config, storage
from sicot.drift import Scores
from sicot.prepare import images, prepared
from sicot.prepare.prepared import PreparedSet

LABELS = ["blue-mug", "green-bag", "pink-shoe", "red-bag", "white-mug", "yellow-shoe"]
WORDS = [
    "red",
    "green",
    "blue",
    "white",
    "yellow",
    "pink",
    "bag",
    "mug",
    "shoe",
    "红色",
    "蓝色",
    "包",
    "杯子",
    "sale",
    "new",
]
COLOURS = {"red": (200, 30, 30), "green": (30, 160, 60), "blue": (30, 60, 200), "white": (240, 240, 240),
           "yellow": (230, 210, 40), "pink": (240, 150, 180)}  # fmt: skip


def photo(label: str, seed: int, size: int = 32) -> bytes:
    """A JPEG whose colour and shape tell the label, with noise."""
    colour, kind = label.split("-")
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 60, (size, size, 3)).astype(np.int64) + 90
    low, high = {"bag": (4, 28), "mug": (10, 22), "shoe": (14, 30)}[kind]
    low, high = low * size // 32, high * size // 32
    pixels[low:high, low:high] = np.array(COLOURS[colour]) + random.integers(-20, 20, 3)
    return images.encode(pixels.clip(0, 255).astype(np.uint8), 90)


def prepared_set(root: Path, rows_per_class: int = 24, size: int = 32, seed: int = 0) -> PreparedSet:
    """A prepared set of six classes, the last a tail class; words name colour and kind, some are noise."""
    random = np.random.default_rng(seed)
    counts = [rows_per_class] * 5 + [max(2, rows_per_class // 4)]
    order = {"train": counts, "val": [4] * 6, "test": [6] * 6}
    files, rows = {}, {}
    for split, each in order.items():
        table = []
        for label, (name, count) in enumerate(zip(LABELS, each, strict=True)):
            for n in range(count):
                tokens = [*name.split("-"), str(random.choice(["sale", "new"]))] if random.random() > 0.2 else []
                words = [WORDS.index(token) + 1 for token in tokens]
                image = photo(name, int(random.integers(1 << 30)), size)
                table.append(
                    {"id": f"{split}-{name}-{n}", "image": image, "label": label, "tokens": tokens, "words": words}
                )
        shuffled = [table[i] for i in random.permutation(len(table))]
        storage.write_table(
            f"{root}/{split}/00000.parquet", pa.Table.from_pylist(shuffled, prepared.ROW), row_group_size=16
        )
        files[split], rows[split] = [f"{split}/00000.parquet"], len(table)
    prior = [(n + 1) / (sum(counts) + 6) for n in counts]
    groups = ["head"] * 3 + ["medium"] * 2 + ["tail"]
    columns = {"label": LABELS, "count": counts, "prior": prior, "group": groups}
    storage.write_table(f"{root}/classes.parquet", pa.table(columns, prepared.CLASSES))
    vocabulary = {"word": WORDS, "count": [10] * len(WORDS), "idf": [1.0] * len(WORDS)}
    storage.write_table(f"{root}/vocabulary.parquet", pa.table(vocabulary, prepared.VOCABULARY))
    vectors = random.normal(size=(len(WORDS) + 1, 8)).astype(np.float32)
    vectors[0] = 0
    storage.write_bytes(f"{root}/word_vectors.safetensors", save({"vectors": vectors}))
    manifest = prepared.Manifest(
        digest="d" * 64, images=config.Images(size=size), text=config.Text(max_words=8), head_above=20, tail_below=8,
        rows=rows, files=files, classes=6, vocabulary=len(WORDS), word_dimension=8, quarantined={}, source={},
    )  # fmt: skip
    storage.write_json(f"{root}/manifest.json", manifest.model_dump(mode="json"))
    return PreparedSet.open(str(root))


def experiment(storage_folder: Path, **train: object) -> config.Experiment:
    """Settings for such a set: the smallest trunk, a few epochs, one thread."""
    settings = {"epochs": 2, "batch_size": 16, "precision": "fp32", "learning_rate": 3e-3, "trunk_rate": 1.0, **train}
    return config.Experiment(
        name="test",
        storage=str(storage_folder),
        model=config.Model(
            dimension=16,
            visual=config.Visual(trunk="squeezenet1_1"),
            attention=config.Attention(rank=4),
            text_swap=0,  # too few steps to learn to doubt in
        ),
        train=config.Train(**settings),  # type: ignore[arg-type]
    )


def bundle_folder(
    root: Path,
    index: config.Index | None = None,
    queries_ND: Tensor | None = None,
    images_NHW3: Tensor | None = None,
    **model: object,
) -> str:
    """An untrained bundle for the set in ``root``/prepared (made if it is not there); gives its folder."""
    from sicot.train import worker
    from sicot.train.calibration import REGIMES, class_sums

    place = root / "prepared"
    data = PreparedSet.open(str(place)) if (place / "manifest.json").exists() else prepared_set(place)
    settings = experiment(root)
    settings = settings.model_copy(update={"model": settings.model.model_copy(update=model)})
    calibration: dict[str, dict[str, Any]] = {  # untrained: photos alone are unknown, words are not
        "temperature": {"image": 1.5, "image_text": 1.2, "text": 0.8},
        "threshold": {"image": 0.9, "image_text": 0.1, "text": 0.1},
        "scores": {regime: Scores.of(np.linspace(0, 1, 1000)).model_dump() for regime in REGIMES},
    }
    training = {"settings": "0" * 64, "workers": 1, "epochs": 0, "seconds": 0.0, "images_per_s": None, "train": {}}
    model = worker.build(settings, data)
    model.means_2CD = functional.normalize(class_sums(model, data, 64, 0, 1), dim=2)
    bundle.write(f"{root}/bundle", "tiny", model, data, calibration, training, index, queries_ND, images_NHW3)
    return f"{root}/bundle"


def trained_bundle(root: Path, epochs: int = 30) -> str:
    """The bundle of a model that has learnt such a set; takes some seconds. Gives its folder."""
    from safetensors.torch import load_file

    from sicot.train import worker

    settings, data = experiment(root, epochs=epochs), prepared_set(root / "prepared")
    calibration: dict[str, dict[str, float]] = {}

    def report(metrics: dict[str, Any], save: worker.Save) -> None:
        if metrics.get("final"):
            calibration.update(metrics["calibration"])
            save(root)

    model = worker.fit(settings, data, report)
    model.means_2CD = load_file(root / "weights.safetensors")["means_2CD"]
    training = {"settings": "0" * 64, "workers": 1, "epochs": epochs, "seconds": 0.0, "images_per_s": None, "train": {}}
    bundle.write(f"{root}/bundle", "trained", model, data, calibration, training)
    return f"{root}/bundle"
