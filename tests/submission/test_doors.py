"""What a short name and arguments mean, without a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from sicot.errors import UserError
from sicot.submission.doors import HERE, ROOT, Command, doors, runtime_env


def test_every_door_is_submitted_or_does_its_work_where_it_is_typed() -> None:
    found = {"prepare", "train", "evaluate", "register", "predict", "enrol", "pipeline", "search", "serve"}
    assert found <= set(doors())
    assert doors()["search"] == "tuning.search"
    assert not set(HERE) & set(doors())


@pytest.mark.parametrize(
    ("name", "arguments", "run", "storage"),
    [
        ("train", ["--preset", "demo"], "demo", "runs"),
        ("train", ["--preset=demo", "--name", "mine", "--storage=s3://shop/x"], "mine", "s3://shop/x"),
        ("search", [], "default", "runs"),
        ("predict", ["--out", "labels"], "", "runs"),
    ],
)
def test_a_command_knows_the_run_it_works_on(name: str, arguments: list[str], run: str, storage: str) -> None:
    command = Command.read(name, arguments)
    assert (command.run, command.storage) == (run, storage)
    assert Command.parse(command.line) == command
    assert Command.parse(f"cd x && {command.line}") == command


def test_the_same_work_has_the_same_key_whatever_else_is_set() -> None:
    key = Command.read("train", ["--preset", "demo"]).key
    assert Command.read("train", ["--name", "demo", "--train.epochs", "3"]).key == key
    assert Command.read("prepare", ["--preset", "demo"]).key != key
    assert Command.read("train", ["--preset", "demo", "--storage", "/data"]).key != key
    labels = ["--out", "labels", "--catalogue.path", "a.parquet"]
    assert Command.read("predict", labels).key != Command.read("predict", [*labels, "--top", "3"]).key


def test_a_command_line_of_somebody_else_is_none_of_ours() -> None:
    assert Command.parse("python train.py") is None
    assert Command.parse("python -m jobs.train 'open") is None


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("train", ["--train.epochs", "0"], "train.epochs: Input should be greater than or equal to 1"),
        ("train", ["--preset", "nothing"], "--preset nothing: no such preset"),
        ("train", ["--config", "nowhere.yaml"], "no config file at"),
        ("train", ["--config", "runs/demo/best.yaml"], "would not travel with the job"),
        ("train", ["--config", "/etc/passwd"], "would not travel with the job"),
        ("predict", [], "out"),
        ("train", ["--storage", "s3://shop"], "track.uri is needed when storage is a URI"),
        ("train", ["--storage", "s3://x", "--name", "a b"], "name: String should match pattern"),
    ],
)
def test_wrong_arguments_are_one_line_before_anything_is_sent(name: str, arguments: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        Command.read(name, arguments).check()
    assert "\n" not in str(error.value)


def test_right_arguments_pass() -> None:
    Command.read("train", ["--preset", "demo", "--fresh"]).check()
    Command.read("predict", ["--out", "labels"]).check()


def test_a_job_that_does_not_exist_is_told_with_those_that_do() -> None:
    with pytest.raises(UserError, match=r"trian: there is no such job; there are .*train"):
        Command.read("trian", [])


def test_going_on_is_the_same_command_without_starting_over() -> None:
    command = Command.read("train", ["--preset", "demo", "--fresh"])
    assert command.again == "python -m jobs.submit train --preset demo"


def test_the_code_that_travels_is_the_projects() -> None:
    assert Path(runtime_env()["working_dir"]) == ROOT == Path(__file__).parents[2]
