"""`mark` and `filter` took 4,096 segments at once; their rows carry sound: half a gigabyte of an eight-hour recording.

Whole rows travel through a stage whatever it consumes, so no stage over rows with sound may ask for many at once.
"""

import pytest

from data_engine.core.schema import load_schema
from data_engine.stages.catalog import STAGES, build_stage
from tests.contract.test_stages import MINIMAL

WITH_SOUND = [name for name in ("segment", "candidate", "voice") if "audio" in load_schema(name).names]


@pytest.mark.parametrize("name", STAGES)
def test_no_stage_asks_for_many_rows_with_sound(name):
    spec = build_stage(name, MINIMAL.get(name, {})).spec
    if spec.shape == "map" and spec.consumes.name in WITH_SOUND:
        assert spec.batch.max_rows <= 64
    assert WITH_SOUND == ["segment", "candidate", "voice"]
