"""Search attention and loss weights with Ray Tune: `python -m tuning.search --preset demo`.

Tries the experiment as it stands first, then what Optuna proposes (`python -m tuning.space` shows from which ranges),
prepares the catalogue if that has not been done, and writes <storage>/<name>/best.yaml, which `jobs.train --config`
takes. The same command continues an interrupted search, with a larger budget a finished one; `--fresh` starts over.
`--help` lists every setting.
"""

from __future__ import annotations

from sicot import cluster, config
from sicot.errors import door
from sicot.search import tuner
from tuning.space import SPACE


def main() -> None:
    """Search what the command line says."""
    experiment = config.load(config.Experiment, program="python -m tuning.search")
    with cluster.session(tuner.places(experiment)):
        tuner.search(experiment, SPACE)


if __name__ == "__main__":
    door(main)
