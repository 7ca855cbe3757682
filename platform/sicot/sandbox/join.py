"""`ray start` for a node that joins another one on 127.0.0.1.

Ray's own means the machine's outer address by that, and refuses where it is told to stay on 127.0.0.1.
"""

import os

_NAME = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_said, os.environ[_NAME] = os.environ[_NAME], "1"

from ray._private import services  # noqa: E402  reads the variable
from ray.scripts.scripts import main  # noqa: E402

os.environ[_NAME] = _said  # what the node's processes read

if __name__ == "__main__":
    services.resolve_ip_for_localhost = lambda host: host
    main()
