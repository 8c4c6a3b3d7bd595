"""numpy's tofile raises an OSError without errno when the disk is full, so a good recording was rejected as INTERNAL.

Found by the test that runs on a tiny disk: after the disk was enlarged the run finished with other bytes.
"""

import errno

import numpy as np
import pytest

from data_engine.io.scratch import ScratchAudio


def test_a_full_disk_keeps_its_errno_on_the_way_through_scratch_audio(tmp_path):
    scratch = ScratchAudio(tmp_path)
    writer = scratch.writer("r", 0)
    writer._file.close()
    writer._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115, PTH123
    with pytest.raises(OSError, match="No space left") as caught:
        writer.append(np.zeros(100_000, np.float32))
    assert caught.value.errno == errno.ENOSPC
    writer._file.close()
