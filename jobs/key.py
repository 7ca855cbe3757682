"""Make a key for the endpoint: it is shown once, the file keeps only its SHA-256.

    python -m jobs.key shop-app                        adds a line to keys.txt
    python -m jobs.key shop-admin --rights enrol       one that may also enrol products and withdraw them
    python -m jobs.key shop-app-2 --file s3://shop/keys.txt

Serve with `--serve.keys keys.txt`. To replace a key, add one under another name, start the endpoint anew, move the
clients over, then take the old line out.
"""

from __future__ import annotations

import argparse

from sicot.endpoint import keys
from sicot.errors import door


def main() -> None:
    """Add the key, then show it."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.key", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="whose key it is: appears in logs")
    parser.add_argument(
        "--rights", nargs="+", choices=keys.RIGHTS, default=[], help="what it may do beside recognising: nothing"
    )
    parser.add_argument("--file", default="keys.txt", help="file of the endpoint's keys, path or URI (keys.txt)")
    options = parser.parse_args()
    key = keys.add(options.name, options.file, options.rights)
    print(
        f"{key}\n\nShown this once. Its SHA-256 is in {options.file}: serve with --serve.keys {options.file}",
        flush=True,
    )


if __name__ == "__main__":
    door(main)
