"""The README's commands, run as they stand there, in their order, in a copy of the project. `make test` itself apart.

Where the README speaks of the reader's own data and GPU, the data is made here and the settings are made small.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sicot.catalogue import synthetic
from sicot.config import Synthetic

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"(?:<!-- run: (.*?) -->\n)?```bash\n(.*?)```", README, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SMALL = (
    " --model.visual.trunk squeezenet1_1 --model.visual.weights none --prepare.images.size 32 --train.epochs 1"
    " --train.batch_size 16 --train.loader_threads 0 --prepare.word2vec.dimension 8 --model.dimension 16"
)

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's files in a folder of their own, beside this environment."""
    place = tmp_path_factory.mktemp("readme")
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, files):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, place / name)  # times too: make goes by them
    (place / ".venv").symlink_to(Path(sys.prefix))
    catalogue = Synthetic(rows=160, classes=5, imbalance=4, image_size=32)
    pq.write_table(synthetic.rows(catalogue, np.arange(160)).drop_columns(["split"]), place / "my.parquet")
    new = pa.table({"image": catalogue_photos(catalogue), "title": ["brass lamp"] * 4, "label": ["red teapot"] * 4})
    pq.write_table(new, place / "new.parquet")
    photo = synthetic.rows(catalogue, [0])["image"][0].as_py()
    (place / "photo.jpg").write_bytes(photo)
    return place


def catalogue_photos(catalogue: Synthetic) -> list[bytes]:
    """Four photos of one product."""
    rows = synthetic.rows(catalogue, np.arange(160)).to_pylist()
    return [row["image"] for row in rows if row["label"] == rows[0]["label"]][:4]


def run(command: str, folder: Path, environment: dict[str, str] | None = None) -> str:
    """Run as a reader would, with the environment's programs on the path; gives what was printed."""
    given = (environment or os.environ).items()
    environment = {name: value for name, value in given if "MAKE" not in name and name != "ARGS"}
    environment["OMP_NUM_THREADS"] = "1"  # above: a make that runs this test would pass its variables on
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], cwd=folder, env=environment, text=True, capture_output=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def commands(prefix: str, note: str = "") -> list[str]:
    """The README's commands that start so, each on one line."""
    lines = [line for said, block in BLOCKS for line in block.replace("\\\n", " ").splitlines() if said == note]
    return [line.strip() for line in lines if line.strip().startswith(prefix)]


@pytest.fixture(scope="module")
def demo(copy: Path) -> Path:
    """A copy in which `make demo` has run; its last screen is printed."""
    (command,) = commands("make demo")
    begun = time.monotonic()
    screen = run(command, copy)
    print(screen[screen.index("━━ demo") :], f"make demo took {time.monotonic() - begun:.0f} s", sep="\n")
    return copy


def test_every_command_of_the_readme_is_run_here() -> None:
    known = (
        "make demo",
        "make million",
        "make test",
        "make dashboards",
        "make cluster",
        "python -m",
        "curl",
        "ray job submit",
        "prometheus",
    )
    known += (". runs/cluster/environment",)
    lines = [line for _, block in BLOCKS for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    assert len(lines) > 8
    assert [line for line in lines if not line.startswith(known)] == []
    assert not re.search(r"^[A-Z]{4,}$", README, re.MULTILINE), "a placeholder was left"


def test_the_demo_ends_with_a_result_and_words_help_on_the_tail(demo: Path) -> None:
    summary = json.loads((demo / "runs/demo/summary.json").read_text())
    assert summary["rows"] == 2400
    assert summary["served"]["agree"] == 1.0
    assert summary["test"]["image"]["top1"] > 0.4
    assert summary["test"]["image_text"]["tail"] > summary["baseline"]["image"]["tail"]
    assert summary["sicot_minus_visual"]["image_text_tail"]["seeds"] == 3
    assert summary["seconds"]["total"] < 360 * (2 if os.environ.get("CI") else 1)  # a busy machine is given twice


def test_one_job_at_a_time(demo: Path) -> None:
    for command in commands("python -m jobs."):
        if "jobs.serve" not in command:
            run(command, demo)
    assert list((demo / "runs/demo/labels/predictions").glob("*.parquet"))


def test_a_new_product_is_enrolled_and_withdrawn(demo: Path) -> None:
    enrolled, withdrawn = commands("python -m jobs.enrol", "new.parquet")
    assert "1 of them enrolled" in run(enrolled, demo)
    assert "0 of them enrolled" in run(f"{withdrawn} --model models:/sicot@challenger", demo)


def test_your_own_data(copy: Path) -> None:
    (command,) = commands("python -m jobs.pipeline", "my.parquet")
    run(command + SMALL, copy)
    assert json.loads((copy / "runs/mine/summary.json").read_text())["rows"] == 160


def test_very_many_classes_take_the_same_command(copy: Path) -> None:
    """The preset's way through sharded training, index and comparison, with a few of its products."""
    (command,) = commands("make million")
    few = (
        "--catalogue.synthetic.rows 4000 --catalogue.synthetic.classes 1500 --prepare.rows_per_block 1024"
        " --train.sharding.above 1000 --train.sharding.sampled 256 --train.batch_size 32"
    )
    screen = run(f"{command} ARGS='{few}'", copy)
    assert "nearest class mean" in screen
    bundle = json.loads((copy / "runs/million/bundle/bundle.json").read_text())
    assert bundle["index"]["recall"] >= 0.99
    assert len(list((copy / "runs/million/train").glob("checkpoint_*/rows-*"))) >= 2
    rows = json.loads((copy / "runs/benchmarks/million.json").read_text())["rows"]
    assert {row["method"] for row in rows} == {"nearest class mean", "bundle", "search"}


def test_the_search_beats_nothing_but_ends_with_a_config(demo: Path) -> None:
    (space,) = commands("python -m tuning.space")
    assert "model.loss.tau" in run(space, demo)
    (command,) = commands("python -m tuning.search")
    begun = time.monotonic()
    print(run(command, demo))
    print(f"the search took {time.monotonic() - begun:.0f} s")
    assert (demo / "runs/demo/best.yaml").exists()


def test_other_searches(demo: Path) -> None:
    front, quick, warm = commands("python -m tuning.search", "other searches")
    run(f"{front} --tune.trials 2 --tune.epochs 2", demo)
    assert list((demo / "runs/front/front").glob("*.yaml"))
    run(f"{quick} --tune.trials 6 --tune.screen 1 --tune.epochs 3 --train.epochs 2", demo)
    assert (demo / "runs/quick/best.yaml").exists()
    assert "warm start: 6 trials of 1 earlier searches are known" in run(f"{warm} --tune.trials 2", demo)


@contextmanager
def serving(command: str, demo: Path) -> Iterator[None]:
    """The README's endpoint, up for the length of the block."""
    with (demo / "serve.log").open("w") as log:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {sys.executable} {command.removeprefix('python')}"], cwd=demo, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + 120
        while "Ctrl-C" not in (demo / "serve.log").read_text():  # from then on Ctrl-C is heard
            assert process.poll() is None, (demo / "serve.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert httpx.get("http://127.0.0.1:8000/readyz").status_code == 200
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def test_the_endpoint_answers_the_readmes_questions(demo: Path) -> None:
    (command,) = commands("python -m jobs.serve")
    assert "With `--serve.grpc_port 9000`" in README
    with serving(f"{command} --serve.grpc_port 9000", demo):
        for question in commands("curl", "against jobs.serve"):
            answer = json.loads(run(question.replace("curl ", "curl -sS "), demo))
            assert answer["ranked"][0]["probability"] > 0
        for code in PYTHON[:2]:
            assert float(run(f"python -c {shlex.quote(code)}", demo).split()[-1]) > 0
        assert replicas_watched(demo) == 2


def replicas_watched(demo: Path) -> int:
    """How many replicas the README's Prometheus comes to see, two at most."""
    (watch,) = commands("prometheus", "while serving")
    address = watch.split()[-1]
    with (demo / "prometheus.log").open("w") as log:
        process = subprocess.Popen(shlex.split(watch), cwd=demo, stderr=log)
    try:
        for _ in range(120):
            time.sleep(0.5)
            try:
                said = httpx.get(f"http://{address}/api/v1/query", params={"query": "ray_sicot_model_info == 1"}).json()
            except httpx.TransportError:
                assert process.poll() is None, (demo / "prometheus.log").read_text()
                continue
            if len(said["data"]["result"]) == 2:
                return 2
        return len(said["data"]["result"])
    finally:
        process.terminate()
        process.wait(20)


def test_the_dashboards_are_open_until_ctrl_c(copy: Path) -> None:
    (command,) = commands("make", "dashboards")
    with (copy / "dashboards.log").open("w") as log:
        process = subprocess.Popen(shlex.split(command), cwd=copy, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while "Ctrl-C" not in (said := (copy / "dashboards.log").read_text()):
            assert process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.5)
        for port in (5000, 9095):
            assert f"http://127.0.0.1:{port}" in said
            assert httpx.get(f"http://127.0.0.1:{port}/").status_code in (200, 302)
    finally:
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        process.wait(60)


def test_a_challenger_is_tried_reported_on_and_learnt_from(demo: Path) -> None:
    serve, report, corrections = commands("", "a challenger")
    with serving(serve, demo):
        run(f"python -c {shlex.quote(PYTHON[2])}", demo)
    assert "1 known visitors" in run(report, demo)
    assert "1 corrections" in run(corrections, demo)
    assert pq.read_table(demo / "corrections")["label"].to_pylist() == ["red enamel kettle"]


def test_an_endpoint_with_keys_answers_who_has_one(demo: Path) -> None:
    make, serve, ask = commands("", "with keys")
    key = run(make, demo).splitlines()[0]
    with serving(serve, demo):
        ask = ask.replace("curl ", "curl -sS ")
        assert json.loads(run(ask, demo, {**os.environ, "KEY": key}))["classes"] > 0
        assert "unauthorized" in run(ask, demo, {**os.environ, "KEY": key[1:]})
    assert key not in (demo / "serve.log").read_text()


def test_an_endpoint_takes_new_products_from_who_may(demo: Path) -> None:
    make, serve, enrol, find, withdraw = commands("", "new products")
    key = run(make, demo).splitlines()[0]

    def asked(question: str) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(run(question.replace("curl ", "curl -sS "), demo, {**os.environ, "KEY": key}))
        return said

    with serving(serve, demo):
        enrolled = asked(enrol)
        deadline = time.monotonic() + 60  # another replica may be asked, which hears of it a little later
        while not (found := asked(find)["classes"]) and time.monotonic() < deadline:
            time.sleep(1)
        gone = asked(withdraw)
    assert (enrolled["label"], enrolled["enrolled"]) == ("brass lamp", 1)
    assert [each["label"] for each in found] == ["brass lamp"]
    assert (gone["label"], gone["enrolled"]) == ("brass lamp", 0)


def test_a_job_is_submitted(copy: Path, head: dict[str, str]) -> None:
    (command,) = commands("ray job submit")
    assert "succeeded" in run(command, copy, head)


def test_jobs_are_followed_listed_and_stopped(copy: Path, head: dict[str, str]) -> None:
    prepare, train, listing, stop = commands("python -m jobs.", "on a cluster")
    assert "succeeded" in run(prepare, copy, head)
    assert "sicot-prepare-demo-" in run(listing, copy, head)
    said = run(
        f"{{ {train} || true; }} & until {listing} | grep -q 'train.*running'; do :; done; {stop} --yes; wait",
        copy,
        head,
    )
    assert "was stopped after" in said
    assert "go on      python -m jobs.submit train --preset demo" in said


def test_a_cluster_to_learn_on(copy: Path) -> None:
    *use, down = commands("", "cluster")
    try:
        screen = run("\n".join(use), copy)
        assert "succeeded" in screen
        assert "s3://sicot/runs/demo/prepared" in screen
    finally:
        ended = run(down, copy)
    assert int(re.findall(r"(\d+) processes ended", ended)[0]) > 10
    assert not (copy / "runs/cluster").exists()
