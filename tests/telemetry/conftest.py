"""Runs of the probe stage, as the runner tests plan them."""

from tests.runners.test_local import planned  # noqa: F401
