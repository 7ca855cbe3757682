"""Settings: three layers, flags for every field, one line for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from sicot.config import Experiment, Job, Model, Serve, load, presets
from sicot.errors import UserError


def test_flags_beat_the_preset_and_the_preset_beats_the_defaults() -> None:
    experiment = load(Experiment, ["--preset", "demo", "--model.attention.rank", "7"])
    assert experiment.model.attention.rank == 7
    assert experiment.name == "demo"
    assert experiment.model.dimension == 128  # the preset's
    assert experiment.model.attention.null_word  # a default, beside a field that was given


@pytest.mark.parametrize("preset", presets())
def test_every_preset_is_valid(preset: str) -> None:
    assert load(Experiment, ["--preset", preset]).name


def test_a_saved_config_is_read_back_the_same(tmp_path: Path) -> None:
    experiment = load(Experiment, ["--preset", "demo", "--train.gpu", "--model.visual.weights", "w.pt"])
    (tmp_path / "config.yaml").write_bytes(experiment.dump())
    assert load(Experiment, ["--config", str(tmp_path / "config.yaml")]) == experiment


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--preset", "demmo"], "--preset demmo: no such preset; there are default, demo"),
        (["--preset", "demo", "--config", "x.yaml"], "give --preset or --config, not both"),
        (["--config", "missing.yaml"], "no config file at missing.yaml"),
        (["--model.attention.rnk", "8"], "--model.attention.rnk"),
        (["--model.attention.rank", "many"], "model.attention.rank: Input should be a valid integer"),
        (["--model.attention.rank", "-1"], "model.attention.rank: Input should be greater than or equal to 0"),
        (["--model.fusion", "average"], "fusion"),
        (["--catalogue.split.val", "0.6", "--catalogue.split.test", "0.4"], "catalogue.split: val + test must leave"),
        (["--model.loss.visual", "0", "--model.loss.mixed", "0", "--model.loss.text", "0"], "nothing would be trained"),
        (["--prepare.groups.head_above", "5"], "prepare.groups: tail_below must not be above"),
        (["--model.loss.distill", "1", "--model.loss.mixed", "0"], "loss.distill needs loss.mixed"),
        (["--name", "../evil"], "name: String should match pattern"),
    ],
)
def test_a_mistake_is_told_in_one_line_that_names_the_field(argv: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        load(Experiment, argv)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("model: {atention: {rank: 3}}", "model.atention: there is no such setting"),
        ("- a list", "must hold `section: values`, not a list"),
        ("model: [", "cannot read"),
        ("train: {epochs: 0}", "train.epochs: Input should be greater than or equal to 1"),
    ],
)
def test_a_mistake_in_a_file_names_field_or_file(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(UserError, match=said.replace("[", r"\[")):
        load(Experiment, ["--config", str(tmp_path / "mine.yaml")])


def test_the_environment_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAME", "from-the-environment")
    monkeypatch.setenv("STORAGE", "/elsewhere")
    assert load(Experiment, []).name == "default"
    assert load(Experiment, []).storage == "runs"


def test_a_mistake_in_a_file_is_told_to_every_job(tmp_path: Path) -> None:
    class ServeJob(Job):
        serve: Serve = Serve()

    (tmp_path / "mine.yaml").write_text("modle: {}\nserve: {port: 1}")
    with pytest.raises(UserError, match="modle: there is no such setting"):
        load(ServeJob, ["--config", str(tmp_path / "mine.yaml")])


def test_a_smaller_job_reads_its_part_of_a_preset() -> None:
    class ServeJob(Job):
        serve: Serve = Serve()

    assert load(ServeJob, ["--preset", "demo", "--serve.port", "9"]).serve.port == 9


def test_every_field_says_what_it_means() -> None:
    def silent(section: type[BaseModel], path: str = "") -> list[str]:
        found = []
        for name, field in section.model_fields.items():
            inner = field.annotation
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                found += silent(inner, f"{path}{name}.")
            elif not field.description:
                found.append(path + name)
        return found

    assert silent(Experiment) == []


def test_a_store_is_found_without_being_named() -> None:
    assert Experiment(storage="here").tracking_uri == f"sqlite:///{Path('here').absolute()}/mlflow.db"
    with pytest.raises(UserError, match=r"track\.uri is needed"):
        _ = Experiment(storage="s3://bucket/runs").tracking_uri


def test_the_visual_only_baseline_is_told_by_its_weights() -> None:
    assert Model().uses_words
    assert not Model.model_validate({"loss": {"mixed": 0, "text": 0}}).uses_words
    assert Model.model_validate({"loss": {"mixed": 0, "text": 0, "contrast": 0.1}}).uses_words
    assert not Model().visual_only().uses_words


def test_presets_hold_no_path_of_a_machine() -> None:
    for preset in presets():
        values = yaml.safe_dump(load(Experiment, ["--preset", preset]).model_dump(mode="json"))
        assert ": /" not in values
