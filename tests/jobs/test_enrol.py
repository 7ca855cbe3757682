"""New products through the doors: from a catalogue to a version that is served, and on to the next trained model."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sicot import registry
from sicot.bundle import Bundle, Query
from sicot.errors import UserError
from tests import builders
from tests.builders import photo

pytestmark = pytest.mark.usefixtures("ray_cluster")

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(job: str, *flags: str) -> str:
        monkeypatch.setattr(sys, "argv", [job, *flags, "--storage", str(tmp_path / "runs")])
        capsys.readouterr()
        importlib.import_module(f"jobs.{job}").main()
        return capsys.readouterr().out

    return run


def row(label: str | None, n: int, **of: object) -> dict[str, object]:
    title = (label or "").replace("-", " ")
    return {"id": f"{label}/{n}", "image": photo("green-mug", n), "title": title, "tags": None, "label": label, **of}


def test_products_are_enrolled_evaluated_carried_and_withdrawn(run: Run, tmp_path: Path) -> None:
    builders.bundle_folder(tmp_path / "runs" / "tiny")
    run("register", "--name", "tiny", "--promote")
    rows = [
        *(row("green-mug", n) for n in range(23)),
        row("blue-bag", 0, image=None, tags="sale,new"),
        row("red-bag", 0),  # trained
        row("blue-bag", 1, image=b"<html>"),
        row(None, 0),
        row("nothing", 0, image=None, title="unheard of"),
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "new.parquet")
    said = run("enrol", "--catalogue.path", str(tmp_path / "new.parquet"), "--force")
    for line in (
        "green-mug: 20 rows",
        "blue-bag: 1 rows",
        "left alone: 1 rows of products that the model was trained on",
        "left out: 3 rows beyond 20 of a product",
        "left out: 2 nothing_to_go_by: None/0, nothing/0",
        "left out: 1 image_type: blue-bag/1",
        "version 2 of sicot knows 8 products, 2 of them enrolled",
    ):
        assert line in said
    store = f"sqlite:///{tmp_path}/runs/mlflow.db"
    champion = Bundle.load(registry.fetch("models:/sicot@champion", store))
    assert champion.enrolled.labels == ["green-mug", "blue-bag"]
    (place,) = (tmp_path / "runs" / "enrol").iterdir()
    told = json.loads((place / "summary.json").read_text())
    assert told["products"] == {"green-mug": 20, "blue-bag": 1}
    assert {bad["id"] for bad in told["bad"]} == {"None/0", "nothing/0", "blue-bag/1"}

    said = run("evaluate", "--catalogue.path", str(tmp_path / "new.parquet"), "--out", str(tmp_path / "report"))
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["groups"]["enrolled"] == {"classes": 2, "low": 0, "high": 0}
    assert report["metrics"]["image_text"]["enrolled"] is not None
    assert report["metrics"]["image"]["unknown_labels"] == 0  # but for the row "nothing", which has no photo
    assert report["metrics"]["text"]["unknown_labels"] == 0
    assert "enrolled" in said
    assert "2 enrolled since without training" in (tmp_path / "report" / "MODEL_CARD.md").read_text()

    builders.bundle_folder(tmp_path / "runs" / "more", dimension=8)  # the next training
    assert "2 enrolled products of version 2 carried over" in run("register", "--name", "more", "--force")
    following = Bundle.load(registry.fetch("models:/sicot@champion", store))
    assert following.enrolled.labels == ["green-mug", "blue-bag"]
    assert following.info.model.dimension == 8

    said = run("enrol", "--withdraw", "blue-bag", "--promote")  # asks the run beside which it was trained
    assert "version 4 of sicot knows 7 products, 1 of them enrolled" in said
    assert "version 4 is champion in place of version 3" in said or "version 4 stays challenger" in said
    with pytest.raises(UserError, match="'blue-bag' is not an enrolled product: there are green-mug"):
        run("enrol", "--model", "models:/sicot/4", "--withdraw", "blue-bag")


def test_a_catalogue_without_new_products_is_refused_and_nothing_registered(run: Run, tmp_path: Path) -> None:
    folder = builders.bundle_folder(tmp_path / "tiny")
    pq.write_table(pa.Table.from_pylist([row("red-bag", n) for n in range(2)]), tmp_path / "old.parquet")
    with pytest.raises(UserError, match="no new product in the catalogue; left alone: 2 rows"):
        run("enrol", "--model", folder, "--catalogue.path", str(tmp_path / "old.parquet"))
    with pytest.raises(UserError, match=r"give --catalogue\.path with new products, or --withdraw"):
        run("enrol", "--model", folder)
    assert not (tmp_path / "runs" / "enrol").exists()


def test_an_enrolled_product_is_predicted_through_the_batch_job(run: Run, tmp_path: Path) -> None:
    from sicot import enrol

    base = Bundle.load(builders.bundle_folder(tmp_path / "tiny"))
    made = enrol.enrol(base, {"green-mug": [Query(photo("green-mug", n), "green mug") for n in range(3)]})
    enrol.save(made, str(tmp_path / "taught"))
    pq.write_table(pa.Table.from_pylist([row("green-mug", 5)]), tmp_path / "ask.parquet")
    run("predict", "--model", str(tmp_path / "taught"), "--catalogue.path", str(tmp_path / "ask.parquet"),
        "--out", str(tmp_path / "labels"), "--top", "7")  # fmt: skip
    (told,) = pq.read_table(tmp_path / "labels" / "predictions").to_pylist()
    expected = made.predict([Query(photo("green-mug", 5), "green mug")], 7)[0]
    assert [each["label"] for each in told["ranked"]] == [each.label for each in expected.ranked]
    assert "green-mug" in {each["label"] for each in told["ranked"]}
    assert told["unknown"] == expected.unknown
