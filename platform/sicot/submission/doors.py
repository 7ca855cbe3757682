"""The jobs that can be sent to a cluster, by their short names, and whether their arguments are right."""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sicot.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
HERE = ("submit", "list", "stop", "key")
"""Doors that do their work where they are typed."""

COMMAND = re.compile(r"python3? -m ((?:jobs|tuning)\.\w+)\b *(.*)", re.DOTALL)
EXPERIMENT = re.compile(r"config\.load\(config\.Experiment\b")


@dataclass(frozen=True)
class Command:
    """A door and what is given to it."""

    module: str
    arguments: tuple[str, ...]

    @classmethod
    def read(cls, name: str, arguments: list[str]) -> Command:
        """The command that a door's short name begins. :class:`UserError` if there is no such door."""
        if name not in doors():
            raise UserError(f"{name}: there is no such job; there are {', '.join(doors())}")
        return cls(doors()[name], tuple(arguments))

    @classmethod
    def parse(cls, line: str) -> Command | None:
        """The command in a shell line such as `python -m jobs.train --preset demo`; None if it is none of ours."""
        found = COMMAND.search(line)
        try:
            return cls(found[1], tuple(shlex.split(found[2]))) if found else None
        except ValueError:  # a quote that is left open
            return None

    @property
    def door(self) -> str:
        """The short name."""
        return self.module.rpartition(".")[2]

    @property
    def line(self) -> str:
        """What runs it on the cluster."""
        return shlex.join(["python", "-m", self.module, *self.arguments])

    @property
    def takes_experiment(self) -> bool:
        """Whether it works on a run, which has a name and a folder."""
        return bool(EXPERIMENT.search(_source(self.module)))

    @property
    def run(self) -> str:
        """Name of the run that it works on, "" where it works on none."""
        return self._settings()["name"] if self.takes_experiment else ""

    @property
    def storage(self) -> str:
        """Folder or URI that everything is written under."""
        return self._settings()["storage"]

    @property
    def mlflow(self) -> str | None:
        """The MLflow server that it is told to use."""
        given: str | None = vars(self._options())["track.uri"]
        return given if given and given.startswith("http") else None

    @property
    def key(self) -> str:
        """Names the work: two commands with the same key must not run at the same time."""
        what = [self.run, self.storage] if self.takes_experiment else list(self.arguments)
        return hashlib.sha256(json.dumps([self.module, what]).encode()).hexdigest()

    @property
    def again(self) -> str:
        """What a user types to have it done, or gone on with."""
        given = [each for each in self.arguments if each != "--fresh"]
        return shlex.join(["python", "-m", "jobs.submit", self.door, *given])

    def check(self) -> None:
        """Refuse wrong arguments as the job would. Where only Ray is installed, the job itself has to find out.

        Raises:
            UserError: the line that the job would end with.
        """
        self._check_config()
        try:
            from sicot import config

            kind: Any = config.Experiment
            if not self.takes_experiment:
                door = vars(importlib.import_module(self.module)).values()
                mine = [each for each in door if isinstance(each, type) and each.__module__ == self.module]
                kind = next(each for each in mine if issubclass(each, config.Job))
        except ModuleNotFoundError:
            return
        settings = config.load(kind, list(self.arguments), program=f"python -m jobs.submit {self.door}")
        if self.takes_experiment:
            settings.tracking_uri  # noqa: B018  raises where MLflow has no place

    def _check_config(self) -> None:
        given = self._options().config
        if given is None:
            return
        place = (ROOT / given).resolve()
        left = [each.strip("/") for each in runtime_env()["excludes"]]
        if not place.is_relative_to(ROOT) or place.relative_to(ROOT).parts[0] in left:
            raise UserError(f"--config {given} would not travel with the job: copy it to {ROOT} and name the copy")
        if not place.is_file():
            raise UserError(f"no config file at {place}: the job reads it from the project's folder")

    def _options(self) -> argparse.Namespace:
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        for each in ("--preset", "--config", "--name", "--storage", "--track.uri"):
            parser.add_argument(each)
        try:
            return parser.parse_known_args(self.arguments)[0]
        except argparse.ArgumentError:  # a flag without its value, which the job refuses
            return parser.parse_args([])

    def _settings(self) -> dict[str, str]:
        """Name and storage as the job will read them: defaults, then its file, then its flags."""
        given = self._options()
        preset = f"platform/sicot/presets/{given.preset}.yaml" if given.preset else given.config
        try:
            layer = yaml.safe_load((ROOT / preset).read_text()) if preset else None
        except (OSError, yaml.YAMLError):
            layer = None  # a file of the machine that sent the job
        layer = layer if isinstance(layer, dict) else {}
        flags = {name: value for name in ("name", "storage") if (value := getattr(given, name)) is not None}
        return {
            "name": "default",
            "storage": "runs",
            **{k: layer[k] for k in ("name", "storage") if k in layer},
            **flags,
        }


def doors() -> dict[str, str]:
    """Modules of the jobs that can be submitted, by short name."""
    files = sorted(path for folder in ("jobs", "tuning") for path in (ROOT / folder).glob("*.py"))
    found = {path.stem: f"{path.parent.name}.{path.stem}" for path in files if "door(main)" in path.read_text()}
    return {name: module for name, module in found.items() if name not in HERE}


def runtime_env() -> dict[str, Any]:
    """What a job needs of the cluster, with the project's folder as its working directory."""
    file = ROOT / "runtime_env.yaml"
    if not file.is_file():
        raise UserError(f"{file} is missing: jobs are submitted from the project's own folder, which travels with them")
    return {**yaml.safe_load(file.read_text()), "working_dir": str(ROOT)}


def _source(module: str) -> str:
    file = ROOT / f"{module.replace('.', '/')}.py"
    return file.read_text() if file.is_file() else ""
