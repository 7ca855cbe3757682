"""The files a cluster is started with: Ray itself must accept them, and they must fit the rest of the project."""

from __future__ import annotations

import copy
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.runtime_env import RuntimeEnv

ROOT = Path(__file__).parents[1]


@pytest.fixture
def cluster() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())


def pinned(name: str) -> str:
    found = re.search(rf"^{name}==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert found, f"requirements.txt does not pin {name}"
    return found[1]


def test_the_cluster_launcher_accepts_the_file(cluster: dict[str, Any]) -> None:
    validate_config(prepare_config(cluster))


@pytest.mark.parametrize("broken", [{"head_node_type": "tail"}, {"max_worker": 3}, {"max_workers": 0}])
def test_the_launcher_would_refuse_a_broken_file(cluster: dict[str, Any], broken: dict[str, Any]) -> None:
    with pytest.raises(Exception, match=r"head_node_type|max_worker"):
        validate_config(prepare_config({**copy.deepcopy(cluster), **broken}))


def test_cpu_and_gpu_nodes_both_grow_with_the_work(cluster: dict[str, Any]) -> None:
    types = prepare_config(cluster)["available_node_types"]
    growing = {name: node for name, node in types.items() if node["max_workers"] > node["min_workers"]}
    assert any(node["resources"].get("GPU") for node in growing.values())
    assert any(node["resources"]["CPU"] and not node["resources"].get("GPU") for node in growing.values())
    assert cluster["max_workers"] >= sum(node["max_workers"] for node in types.values())


def test_every_image_has_the_pinned_ray_and_a_python_the_project_takes(cluster: dict[str, Any]) -> None:
    images = [cluster["docker"]["image"]]
    images += [node["docker"]["worker_image"] for node in cluster["available_node_types"].values() if "docker" in node]
    assert all(re.fullmatch(rf"rayproject/ray:{re.escape(pinned('ray'))}-py31[12](-gpu)?", each) for each in images)


def test_files_copied_to_the_nodes_exist(cluster: dict[str, Any]) -> None:
    assert all((ROOT / local).is_file() for local in cluster["file_mounts"].values())


def test_nothing_of_the_cluster_listens_beyond_loopback_for_the_dashboard(cluster: dict[str, Any]) -> None:
    assert any("--dashboard-host=127.0.0.1" in command for command in cluster["head_start_ray_commands"])


def test_the_runtime_environment_makes_the_package_importable() -> None:
    environment = RuntimeEnv(working_dir=str(ROOT), **yaml.safe_load((ROOT / "runtime_env.yaml").read_text()))
    assert (ROOT / environment["env_vars"]["PYTHONPATH"] / "sicot" / "__init__.py").is_file()
    assert not os.path.isabs(environment["env_vars"]["PYTHONPATH"])  # it is read on other machines
    assert {"/.git", "/.venv", "/runs"} <= set(environment["excludes"])
