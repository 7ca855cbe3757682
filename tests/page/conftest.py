"""The page is tested on the endpoint of tests/serve."""

from tests.serve.conftest import endpoint

__all__ = ["endpoint"]
