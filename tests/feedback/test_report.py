"""A report counts what was said, for whom, by whom, and compares like with like."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs import experiment
from sicot import config
from sicot.catalogue import sources
from sicot.errors import UserError
from sicot.feedback import corrections, figures, report
from sicot.feedback.store import Feedback, Store
from sicot.prepare import pipeline
from tests.builders import LABELS, photo
from tests.feedback.test_store import answered


@pytest.fixture
def shop(store: Store) -> Store:
    """Two arms; by hand, so that every figure can be checked by counting."""
    store.record(
        [
            answered("1", time=10, visitor="ann", shots="head"),
            answered("2", time=11, visitor="ann", shots="tail"),
            answered("3", time=12, visitor="bob", shots="head"),
            answered("4", time=13, shots="head"),
            answered("5", time=20, arm="challenger", version="4", visitor="cy", shots="tail"),
            answered("6", time=21, arm="challenger", version="4", visitor="di", shots="head"),
            answered("7", time=22, visitor="ann", shots="head"),
            answered("8", time=23, visitor="eve", shots="tail"),
            answered("9", time=24, arm="challenger", version="4", visitor="cy", shots="tail"),
        ]
    )
    said: list[tuple[str, Any, str | None]] = [
        ("1", "accepted", None), ("2", "corrected", "mug"), ("3", "accepted", "mug"), ("7", "corrected", "bag"),
        ("1", "converted", None), ("7", "converted", None), ("5", "accepted", "bag"), ("5", "accepted", "bag"),
        ("5", "converted", None), ("never", "accepted", None),
    ]  # fmt: skip
    for request_id, outcome, label in said:
        store.keep(Feedback(request_id, 30.0, outcome, label))
    return store


def counted(measures: dict[str, Any], group: str) -> dict[str, tuple[int, int]]:
    return {name: (groups[group]["count"], groups[group]["of"]) for name, groups in measures.items()}


def test_each_version_is_counted_by_group(shop: Store) -> None:
    champion, challenger = figures.collect(shop)["versions"]
    assert (champion["arm"], champion["version"], champion["answers"], champion["visitors"]) == ("champion", "3", 6, 3)
    # accepted: 1 and 3; right: 1, and 7 that was corrected to what had been said, of 1, 2, 3, 7;
    # converted: ann, of ann, bob, eve and the nameless one of 4
    assert counted(champion["measures"], "all") == {"acceptance": (2, 6), "accuracy": (2, 4), "conversion": (1, 4)}
    assert counted(champion["measures"], "tail") == {"acceptance": (0, 2), "accuracy": (0, 1), "conversion": (0, 2)}
    assert counted(champion["measures"], "head") == {"acceptance": (2, 4), "accuracy": (2, 3), "conversion": (1, 3)}
    assert (challenger["arm"], challenger["answers"], challenger["visitors"]) == ("challenger", 3, 2)
    assert counted(challenger["measures"], "all") == {"acceptance": (1, 3), "accuracy": (1, 1), "conversion": (1, 2)}
    assert challenger["measures"]["accuracy"]["head"]["share"] is None
    assert challenger["from"] == "1970-01-01T00:00:20+00:00"


def test_the_arms_are_compared_over_the_time_when_both_answered(shop: Store) -> None:
    compared = figures.collect(shop)["comparison"]
    assert (compared["champion"], compared["challenger"]) == ("3", "4")
    assert (compared["from"], compared["to"]) == ("1970-01-01T00:00:20+00:00", "1970-01-01T00:00:23+00:00")
    acceptance = compared["measures"]["acceptance"]["all"]
    assert (acceptance["champion"]["of"], acceptance["challenger"]["of"]) == (2, 2)
    assert acceptance["difference"] == 0.5
    assert acceptance["ci95"][0] < 0.5 < acceptance["ci95"][1]
    assert 0 < acceptance["p"] < 1


def test_a_newer_challenger_is_compared_with_who_answered_beside_it(shop: Store) -> None:
    shop.record([answered(f"n{n}", time=40 + n % 5, arm="challenger", version="5") for n in range(9)])
    shop.record([answered(f"m{n}", time=40 + n % 5) for n in range(20)])
    compared = figures.collect(shop)["comparison"]
    assert (compared["challenger"], compared["from"]) == ("5", "1970-01-01T00:00:40+00:00")
    assert compared["measures"]["acceptance"]["all"]["champion"]["of"] == 20


def test_what_was_before_can_be_left_out(shop: Store) -> None:
    champion, challenger = figures.collect(shop, 22.0)["versions"]
    assert (champion["answers"], challenger["answers"]) == (2, 1)
    with pytest.raises(UserError, match="no answers since 1970-01-01T00:01:40"):
        figures.collect(shop, 100.0)


def test_one_arm_alone_is_reported_without_a_comparison(store: Store) -> None:
    store.record([answered("1")])
    found = figures.collect(store)
    assert found["comparison"] is None
    assert "nothing to compare" in report.table(found)


Run = Callable[..., str]


@pytest.fixture
def run(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the job on the database with some arguments; gives what it printed."""

    def job(*arguments: str) -> str:
        command = ["jobs.experiment", *arguments[:1], "--feedback", url, "--storage", str(tmp_path), *arguments[1:]]
        monkeypatch.setattr("sys.argv", command)
        experiment.main()
        return capsys.readouterr().out

    return job


def test_the_job_prints_and_writes_what_was_counted(shop: Store, run: Run, tmp_path: Path) -> None:
    said = run("report")
    assert "champion 3: 6 answers to 3 known visitors" in said
    assert "33.3 [9.7, 70.0] of 6" in said  # acceptance, all
    assert "challenger 4 minus champion 3" in said
    assert "+50.0" in said
    assert "1 pieces of feedback are of answers that the database does not have" in said
    written = json.loads((tmp_path / "experiment" / "report.json").read_text())
    assert written["versions"] == figures.collect(shop)["versions"]
    assert (tmp_path / "experiment" / "measures.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="no answers since 2025"):
        run("report", "--since", "2025-06-01")


@pytest.mark.parametrize("what", ["report", "corrections"])
def test_the_job_looks_for_the_database_in_its_storage(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["jobs.experiment", what, "--storage", str(tmp_path)])
    with pytest.raises(UserError, match=f"no database at {tmp_path}/feedback.db"):
        experiment.main()
    assert not list(tmp_path.iterdir())
    Store.open(f"sqlite:///{tmp_path}/feedback.db").record([answered("1")])
    with pytest.raises(UserError, match="no correction") if what == "corrections" else nullcontext():
        experiment.main()


@pytest.mark.usefixtures("ray_cluster")
def test_corrections_are_a_catalogue(shop: Store, run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no correction with a photo: there are 2 without"):
        run("corrections")
    assert not (tmp_path / "corrections").exists()
    given = [
        Feedback(f"c{n}", 40.0 + n, "corrected", LABELS[n % 6], photo(LABELS[n % 6], n), f"红色 {n}", ("sale", "新"))
        for n in range(corrections.ROWS + 1)
    ]
    for each in given:
        shop.keep(each)
    assert "201 corrections" in run("corrections")
    out = str(tmp_path / "corrections")
    assert [path.name for path in Path(out).iterdir()] == [corrections.FILE]
    rows = sources.read(config.Catalogue(path=out)).take_all()
    assert [(row["id"], row["label"], row["image"], row["title"], tuple(row["tags"])) for row in rows] == [
        (f"feedback-{each.request_id}", each.label, each.image, each.title, each.tags) for each in given
    ]
    prepared(out, tmp_path)


def prepared(catalogue: str, folder: Path) -> None:
    """Prepare the catalogue: no row of it is bad."""
    settings = config.Experiment(name="next", storage=str(folder), catalogue=config.Catalogue(path=catalogue))
    made = pipeline.prepare(settings)
    assert sum(made.manifest.rows.values()) == corrections.ROWS + 1
    assert made.manifest.quarantined == {}
    assert sorted(made.classes.labels) == LABELS


def test_corrections_that_cannot_be_written_leave_the_ones_before(
    shop: Store, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.keep(Feedback("c", 40.0, "corrected", "bag", b"photo"))
    run("corrections")
    before = (tmp_path / "corrections" / corrections.FILE).read_bytes()

    def broken(*_: object) -> Iterator[Any]:
        raise OSError("the disk is gone")

    monkeypatch.setattr(corrections, "_batches", broken)
    with pytest.raises(OSError, match="gone"):
        run("corrections")
    assert [path.name for path in (tmp_path / "corrections").iterdir()] == [corrections.FILE]
    assert (tmp_path / "corrections" / corrections.FILE).read_bytes() == before
    assert pq.read_table(tmp_path / "corrections").num_rows == 1
