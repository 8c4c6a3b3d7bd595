"""A short storm: workers and drivers killed at random moments. The long one is `make chaos`."""

import shutil

import pytest

from tests.chaos.__main__ import probe_command, undisturbed, weather
from tests.chaos.compare import compare
from tests.chaos.storm import Storm

SHARDS, PAUSE = 12, 0.1


def command(out, runner):
    return probe_command(out, runner, SHARDS, PAUSE)


@pytest.fixture(scope="module")
def peace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peace") / "out"
    undisturbed(command(folder, "local"), folder)
    return folder


def test_five_workers_and_two_drivers_killed_change_no_byte(peace, tmp_path):
    line = weather("probe", "local", command, tmp_path, Storm.of(7, 5, 2), peace)
    assert line["breaches"] == []
    assert (line["workers killed"], line["drivers killed"], line["of them alone"]) == (5, 2, 1)
    assert line["lost"] == line["doubled"] == 0
    assert line["rows"] > 0


def test_what_was_lost_doubled_changed_or_left_over_is_found(peace, tmp_path):
    shutil.copytree(peace, tmp_path / "hurt")
    table = next((tmp_path / "hurt/work").glob("prefer.second-*"))
    (table / "part-00003.json").unlink()
    (table / "part-00005.json").write_text((table / "part-00004.json").read_text())
    part, other = next(table.glob("part-00006-*.arrow")), next(table.glob("part-00007-*.arrow"))
    part.write_bytes(other.read_bytes())
    (tmp_path / "hurt/work/tmp/left").mkdir()
    found = compare(peace, tmp_path / "hurt")
    assert (found["lost"] > found["doubled"] > 0, len(found["differing"])) == (True, 1)
    assert found["leftovers"] == ["work/tmp/left"]
