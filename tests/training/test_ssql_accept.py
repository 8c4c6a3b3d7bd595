"""The accept test of SSQL: figures of both pre-trainings over several seeds, and which of them fall short."""

import pytest

pytest.importorskip("torch")

from data_engine.training.ssql_accept import AcceptSettings, accept, mean_of, shortfalls

WIDTHS = ("float", "8w8a", "4w4a", "3w4a", "2w4a")
PLAIN = {bits: {"phones": 0.40, "codes": 0.90} for bits in WIDTHS}
BETTER = {bits: {"phones": 0.46, "codes": 0.995} for bits in WIDTHS}


def test_the_same_four_utterances_give_the_same_figures(cache):
    settings = AcceptSettings(cache=cache, utterances=4, steps=3, batch=4, crop=40, codes=8, width=16, seeds=2)
    found = accept(settings)
    assert found == accept(settings)
    for name in ("untrained", "plain", "ssql"):
        assert tuple(found[name]) == WIDTHS
        assert found[name]["float"]["codes"] == 1.0
        assert found[name] == mean_of(found["seeds"][name])
        assert all(0 <= value <= 1 for figures in found[name].values() for value in figures.values())
    assert found["seeds"]["ssql"][0] != found["seeds"]["ssql"][1]
    assert found["ssql"] != found["plain"] != found["untrained"]
    assert found["missed"] == shortfalls(found["plain"], found["ssql"])


def test_what_is_better_by_enough_passes_and_every_shortfall_is_named():
    assert shortfalls(PLAIN, BETTER) == []
    assert shortfalls(BETTER, PLAIN) == [
        "phones at 2w4a +5 points", "phones at 4w4a +1 point", "phones in float not 0.5 points worse",
        "codes at 4w4a +1 point", "codes at 8w8a 0.99",
    ]  # fmt: skip
    low = {**BETTER, "4w4a": {"phones": 0.46, "codes": 0.89}}
    assert shortfalls(PLAIN, low) == ["codes at 4w4a +1 point", "codes at 4w4a 0.90"]
