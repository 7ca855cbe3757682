"""The endpoint, and the least that Ray Serve does for a request.

python -m benchmarks.serving.ours ours <bundle> <port>
python -m benchmarks.serving.ours echo <bundle> <port>
"""

from __future__ import annotations

import argparse
import signal
import threading

from ray import serve

from benchmarks.serving.echo import Echo
from serve_apps import recognizer
from sicot import config
from sicot.endpoint import server


def main() -> None:
    """Serve until terminated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["ours", "echo"])
    parser.add_argument("bundle")
    parser.add_argument("port", type=int)
    options = parser.parse_args()
    settings = config.Serve(model=options.bundle, port=options.port, cache=0)
    with server.session(settings):
        if options.what == "ours":
            recognizer.start(settings, "")
        else:
            deploy = serve.deployment(name="echo", num_replicas=settings.replicas, max_ongoing_requests=1000)
            server.listen(settings)
            server.deploy(deploy(serve.ingress()(Echo)).bind(settings))
        stopped = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stopped.set())
        stopped.wait()
        server.stop()


if __name__ == "__main__":
    main()
