"""Evaluation as one call: the right rows, honest counts, a report that people and programs can read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.data

from sicot import config
from sicot.bundle import Bundle
from sicot.catalogue.schema import ROW
from sicot.errors import UserError
from sicot.evaluate import report
from sicot.evaluate.run import Rows, catalogue_rows, evaluate, gate_question, prepared_rows
from sicot.prepare.prepared import CLASSES, PreparedSet
from tests import builders

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, PreparedSet]:
    """A bundle and the prepared set that it is of."""
    root = tmp_path_factory.mktemp("made")
    folder = builders.bundle_folder(root)
    return folder, PreparedSet.open(f"{root}/prepared")


def labelled(label: str | None, n: int, split: str | None = None) -> dict[str, Any]:
    photo = builders.photo(label if label in builders.LABELS else "red-bag", n)
    return {"id": f"{label}-{n}", "image": photo, "title": "red bag", "tags": [], "label": label, "split": split}


def test_a_prepared_split_is_measured_in_every_regime(made: tuple[str, PreparedSet], tmp_path: Path) -> None:
    folder, prepared = made
    result = evaluate(folder, prepared_rows(prepared), str(tmp_path / "report"))
    assert list(result.metrics) == ["image", "image_text", "text"]
    assert result.metrics["image"]["rows"] == result.metrics["image_text"]["rows"] == 36
    assert result.metrics["text"]["rows"] < 36  # rows without words
    bundle = Bundle.load(folder)
    right = {"image": 0, "image_text": 0}
    for row in pq.read_table(f"{prepared.root}/test/00000.parquet").to_pylist():
        for regime in right:
            query = builders.bundle.Query(row["image"], tags=tuple(row["tokens"] if regime == "image_text" else ()))
            right[regime] += bundle.predict([query])[0].ranked[0].label == builders.LABELS[row["label"]]
    assert {regime: result.metrics[regime]["top1"] for regime in right} == {r: n / 36 for r, n in right.items()}
    kept = json.loads((tmp_path / "report" / "report.json").read_text())
    assert kept["metrics"] == result.metrics
    for name in ("report.md", "MODEL_CARD.md", "accuracy_by_frequency.png", "reliability.png", "risk_coverage.png"):
        assert (tmp_path / "report" / name).stat().st_size > 500
    card = (tmp_path / "report" / "MODEL_CARD.md").read_text()
    assert "our reading" in card
    assert bundle.info.digest in card


def test_a_prepared_set_may_be_named_by_its_folder_a_split_or_a_file(made: tuple[str, PreparedSet]) -> None:
    root = made[1].root
    for path, split, rows in (
        (root, None, 36),
        (f"{root}/", "val", 24),
        (f"{root}/val", None, 24),
        (f"{root}/val/00000.parquet", None, 24),
        (f"{root}/val/*.parquet", None, 24),
        (f"{root}/*/00000.parquet", "val", 24),
    ):
        found = catalogue_rows(config.Catalogue(path=path), split)
        assert found.dataset.count() == rows, path
        assert found.labels is not None
        assert found.labels.to_pylist() == builders.LABELS
    every = sum(made[1].manifest.rows.values())
    assert catalogue_rows(config.Catalogue(path=root), all_splits=True).dataset.count() == every
    with pytest.raises(UserError, match=r"^test split of .*/val has no rows$"):
        catalogue_rows(config.Catalogue(path=f"{root}/val"), "test")


def test_a_file_of_a_prepared_set_means_that_file_alone(tmp_path: Path) -> None:
    prepared = builders.prepared_set(tmp_path)
    table = pq.read_table(f"{tmp_path}/val/00000.parquet")
    pq.write_table(table.slice(0, 10), f"{tmp_path}/val/00000.parquet")
    pq.write_table(table.slice(10), f"{tmp_path}/val/00001.parquet")
    files = {**prepared.manifest.files, "val": ["val/00000.parquet", "val/00001.parquet"]}
    manifest = prepared.manifest.model_copy(update={"files": files})
    (tmp_path / "manifest.json").write_text(manifest.model_dump_json())
    for name, rows in (("val/00000.parquet", 10), ("val/00001.parquet", 14), ("val", 24)):
        assert catalogue_rows(config.Catalogue(path=f"{tmp_path}/{name}")).dataset.count() == rows


@pytest.mark.parametrize(
    "manifest", ['{"name": "shop", "icons": []}', '["a", "list"]', "no JSON", '{"version": 1, "digest": "x"}']
)
@pytest.mark.parametrize("place", [".", "shoes/new"])
def test_a_catalogue_beside_somebody_elses_manifest_is_a_catalogue(tmp_path: Path, manifest: str, place: str) -> None:
    folder = tmp_path / place
    folder.mkdir(parents=True, exist_ok=True)
    (tmp_path / "manifest.json").write_text(manifest)
    pq.write_table(pa.Table.from_pylist([labelled("red-bag", n) for n in range(3)], ROW), folder / "products.parquet")
    for path in (folder, folder / "products.parquet"):
        found = catalogue_rows(config.Catalogue(path=str(path)))
        assert (found.labels, found.dataset.count()) == (None, 3)


def test_what_stands_beside_the_splits_is_none_of_them(made: tuple[str, PreparedSet]) -> None:
    place = Path(made[1].root, "more")
    place.mkdir()
    pq.write_table(pa.Table.from_pylist([labelled("red-bag", 0)], ROW), place / "products.parquet")
    assert catalogue_rows(config.Catalogue(path=str(place))).dataset.count() == 1


def test_a_split_of_a_catalogue_and_rows_nobody_can_measure(made: tuple[str, PreparedSet], tmp_path: Path) -> None:
    rows = [
        *(labelled("red-bag", n, "test") for n in range(4)),
        labelled("red-bag", 9, "train"),
        labelled(" blue-mug ", 0, "test"),  # a label as people type it
        labelled("submarine", 0, "test"),  # not one of the model's
        labelled(None, 0, "test"),
        labelled("", 1, "test"),
        {**labelled("red-bag", 10, "test"), "image": b"broken"},
    ]
    pq.write_table(pa.Table.from_pylist(rows, ROW), tmp_path / "products.parquet")
    found = catalogue_rows(config.Catalogue(path=str(tmp_path / "products.parquet")), "test")
    result = evaluate(made[0], found, str(tmp_path / "report"))
    told = result.metrics["image"]
    assert (told["rows"], told["unknown_labels"]) == (6, 1)
    assert result.report["rows"]["labelled"] == 7
    assert result.report["rows"]["without_label"] == 2
    assert result.report["rows"]["unanswered"] == {"image_type": 1}
    printed = report.table(result.metrics)
    assert "does not know, wrong in top-1, -5 and -10: 1" in printed


def test_rows_of_unknown_products_are_told_from_known_ones(made: tuple[str, PreparedSet], tmp_path: Path) -> None:
    rows = [*(labelled("red-bag", n) for n in range(4)), *(labelled("submarine", n) for n in range(3))]
    for folder, kept in (("mixed", rows), ("foreign", rows[4:])):
        dataset = ray.data.from_arrow([pa.Table.from_pylist(kept, ROW)])
        told = evaluate(made[0], Rows(dataset, "here"), str(tmp_path / folder)).metrics
        assert told["image"]["rows"] == len(kept)
        assert told["image"]["unknown_labels"] == 3
        # photos alone are below the tiny bundle's threshold, photos with words are above it
        assert [told[regime]["refused"] for regime in ("image", "image_text", "text")] == [1.0, 0.0, 0.0]
        card = (tmp_path / folder / "MODEL_CARD.md").read_text()
        assert f"photo alone: 3 of {len(kept)} rows; called unknown 100.0" in card
    assert told["image"]["auroc"] is told["image"]["coverage"] is None  # nothing known to tell them from
    mixed = json.loads((tmp_path / "mixed" / "report.json").read_text())["metrics"]
    assert 0 <= mixed["image"]["auroc"] <= 1
    assert (mixed["image"]["coverage"], mixed["image_text"]["coverage"]) == (0.0, 1.0)


def test_rows_without_any_label_are_refused(made: tuple[str, PreparedSet], tmp_path: Path) -> None:
    dataset = ray.data.from_arrow([pa.Table.from_pylist([labelled(None, 0)], ROW)])
    with pytest.raises(UserError, match="no row of here has a label"):
        evaluate(made[0], Rows(dataset, "here"), str(tmp_path / "report"))
    assert not (tmp_path / "report").exists()


def test_a_visual_only_model_is_measured_by_photo_alone(tmp_path: Path) -> None:
    loss = config.Model().visual_only().loss
    folder = builders.bundle_folder(tmp_path, loss=loss)
    result = evaluate(folder, prepared_rows(PreparedSet.open(f"{tmp_path}/prepared")), str(tmp_path / "report"))
    assert list(result.metrics) == ["image"]
    assert "photos only" in (tmp_path / "report" / "MODEL_CARD.md").read_text()


def test_the_gate_asks_the_same_rows_and_counts_what_is_not_answered_as_wrong(made: tuple[str, PreparedSet]) -> None:
    rows = [labelled("yellow-shoe", n) for n in range(3)] + [labelled("submarine", 0)]
    rows.append({**labelled("yellow-shoe", 5), "image": b"broken"})
    (told,) = gate_question(Rows(ray.data.from_arrow([pa.Table.from_pylist(rows, ROW)]), "here"))([made[0]])
    bundle = Bundle.load(made[0])
    right = sum(
        bundle.predict([builders.bundle.Query(r["image"])])[0].ranked[0].label == "yellow-shoe" for r in rows[:3]
    )
    assert told["image"] == {"top1": right / 5, "tail": right / 4}  # the submarine is no tail class: nobody knows it


def test_a_candidate_that_dropped_the_rare_classes_has_them_wrong(
    made: tuple[str, PreparedSet], tmp_path: Path
) -> None:
    without = tmp_path / "prepared"
    shutil.copytree(made[1].root, without)
    classes = pq.read_table(without / "classes.parquet").to_pylist()
    classes[-1] |= {"label": "brown-hat", "group": "head"}  # where yellow-shoe, the tail, stood
    pq.write_table(pa.Table.from_pylist(classes, CLASSES), without / "classes.parquet")
    candidate = builders.bundle_folder(tmp_path)
    rows = pa.Table.from_pylist([labelled("yellow-shoe", n) for n in range(3)] + [labelled("red-bag", 0)], ROW)
    question = gate_question(Rows(ray.data.from_arrow([rows]), "here"))
    for folders in ([candidate, made[0]], [made[0], candidate]):
        told = dict(zip(folders, question(folders), strict=True))
        assert told[candidate]["image"]["tail"] == told[candidate]["image_text"]["tail"] == 0.0
        assert told[made[0]]["image"]["tail"] is not None
    assert question([candidate])[0]["image"]["tail"] is None  # what it would say of itself
