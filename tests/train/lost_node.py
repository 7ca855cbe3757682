"""Trains on a cluster of two nodes, one of which is taken away for good: `python -m tests.train.lost_node <folder>`."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from sicot import storage
from sicot.train import trainer
from tests.builders import experiment, prepared_set


def main(folder: Path) -> None:
    """Print when the node was lost, the epochs of the bundle, and how many workers wrote the last checkpoint."""
    settings = experiment(folder, epochs=6, workers=2, batch_size=8, checkpoint_steps=5, max_failures=5)
    settings.train.min_workers = 1
    settings.train.sharding.above, settings.train.sharding.sampled = 1, 0
    prepared = prepared_set(folder / "set", rows_per_class=60)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "dashboard_port": 0})
    lost = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address)

    def lose() -> None:
        while not list(Path(settings.folder).glob("train/checkpoint_*/rows-*")):
            time.sleep(0.1)
        cluster.remove_node(lost, allow_graceful=False)
        print("lost a node", flush=True)

    threading.Thread(target=lose, daemon=True).start()
    place = trainer.fit(settings, prepared, None, settings.folder)
    print("epochs", storage.read_json(f"{place}/bundle.json")["training"]["epochs"])
    last = max(path.parent for path in Path(settings.folder).glob("train/checkpoint_*/rows-*"))
    print("files of rows", len(list(last.glob("rows-*"))))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
