"""Fixtures every test may use: real speech that is there, and the third-party plugin."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

CHECKOUT = Path(__file__).parents[1]
PLUGINS = CHECKOUT / "tests" / "plugins"

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def conversation() -> Path:
    """The 30-second two-person conversation inside the pyannote.audio wheel."""
    for folder in importlib.util.find_spec("pyannote").submodule_search_locations:
        path = Path(folder) / "audio" / "sample" / "sample.wav"
        if path.is_file():
            return path
    pytest.fail("the pyannote.audio wheel is missing; run `make setup`")


@pytest.fixture(scope="session")
def shared_speech() -> Path:
    """The shared recordings beside the checkout; tests that need them are skipped elsewhere."""
    folder = CHECKOUT.parent / "shared" / "speech"
    if not (folder / "manifest.jsonl").is_file():
        pytest.skip("../shared/speech is not here")
    return folder


@pytest.fixture
def plugin(monkeypatch):
    """Makes the distribution in tests/plugins visible to this process and to spawned ones."""
    monkeypatch.setattr(sys, "path", [str(PLUGINS), *sys.path])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(PLUGINS), os.environ.get("PYTHONPATH", "")]))


settings.register_profile(
    "shared-machine", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("shared-machine")
