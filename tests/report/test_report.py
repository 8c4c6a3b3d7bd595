"""The report of a run: one harmless page that says what happened and lets one listen."""

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.core.harness import StageStats
from data_engine.core.schema import load_schema
from data_engine.io.shards import PartWriter
from data_engine.io.storage import Storage
from data_engine.report import wording
from data_engine.report.charts import histogram, ticks
from data_engine.report.page import render, write_report
from data_engine.report.samples import PAGE_BYTES, Budget, conversation
from data_engine.report.settings import masked
from data_engine.report.spread import Spread, bars
from tests.rows import plain_row, write_output
from tests.stages.rows import candidate, codes, decided, segment

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>\x00"


class Page(HTMLParser):
    """What a browser would find on the page."""

    def __init__(self, text):
        super().__init__()
        self.source, self.tags, self.text, self.rows = text, [], "", []
        self._hidden = self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._hidden = tag == "style"
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag):
        self._hidden = False
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, data):
        if self._hidden:
            return
        self.text += data
        if self._in_cell:
            self.rows[-1][-1] += data

    def all(self, *names):
        return [attributes for tag, attributes in self.tags if tag in names]

    def row(self, *starts):
        """The cells of the first table row that starts with these."""
        cells = ([" ".join(cell.split()) for cell in row] for row in self.rows)
        return next(row for row in cells if tuple(row[: len(starts)]) == starts)


def dropped(number, **changes):
    return segment(number, decision="drop", reasons=["TOO_NOISY"], snr_db=3.0, **changes)


def take(turn, number, **changes):
    return decided(candidate(turn, number), **changes)


def failed(turn, number, reason="RATE_OFF", **changes):
    return take(turn, number, decision="drop", reasons=[reason], selected=False, score=0.4, **changes)


def of(table, **columns):
    return plain_row(load_schema(table)) | columns


def voice(number, **changes):
    facts = {"consent_basis": "contract", "allowed_uses": ["tts", "clone"], "num_samples": 80000, "sample_rate": 16000}
    return of("voice", voice_id=f"v{number}", score=0.5) | facts | changes


def pair(number, kind, **changes):
    audio = {"chosen_audio": segment(number)["audio"], "rejected_audio": segment(number + 1)["audio"]}
    return of("preference", pair_id=f"p{number}", kind=kind, axis="relevance", chosen_text="good", **audio) | changes


def example(number, **changes):
    ids = {"input_ids": [5, 6, 65536, 70655, 70656, 70657], "loss_mask": [0, 0, 0, 1, 1, 1]}
    return of("aqaa", example_id=f"e{number}", type="AQTAA", vq06_q=[1] * 25, vq06_a=[1] * 50, **ids) | changes


def recording(**changes):
    speech = [{"channel": 0, "start": 0, "num_samples": 16000 * 60}, {"channel": 0, "start": 0, "num_samples": 16000}]
    return of("recording", recording_id="r", sample_rate=16000, num_samples=16000 * 90, speech=speech) | changes


def reject(number, **changes):
    said = {"detail": "is not audio", "input_ref": f"in/{number}.wav", "code": "NOT_AUDIO", "stage": "decode"}
    return of("reject", record_id=f"x{number}", **said) | changes


def add_rejects(folder, run, rows, group="curate.analyse"):
    storage = Storage(str(folder))
    with storage.scratch() as scratch:
        writer = PartWriter(load_schema("reject"), scratch)
        writer.write(load_schema("reject").batch(rows))
        marker = writer.commit(storage, f"rejects/{group}", 0, {})
    run["rejects"] = [*run.get("rejects", []), f"rejects/{group}/{marker['file']}"]


def pipeline(stages, dead=(), planned=1):
    shards = {"planned": planned, "committed": planned - len(dead), "dead": len(dead)}
    found = {"signature": "s", "shards": shards, "dead": list(dead), "wall_seconds": 12.0}
    return found | {"stages": [stats.as_dict() for stats in stages]}


def made(folder, tables, state="complete", config=None, rejects=(), pipelines=None):
    """An output folder and its run.json."""
    write_output(folder, tables, state, config)
    run = json.loads((folder / "run.json").read_text()) | {"pipelines": pipelines or {}}
    if rejects:
        add_rejects(folder, run, list(rejects))
    return run


def page_of(folder, tables, **more):
    run = made(folder, tables, **more)
    return Page(render(Storage(str(folder)), run))


EVERYTHING = {
    "recordings": [[recording()]],
    "segments": [[segment(1, 30.0, **codes(4)), segment(2, 6.0)], [dropped(3), segment(4, text=None)]],
    "voices": [[voice(1), voice(2, consent_basis=None)]],
    "candidates": [[take(0, 0), failed(0, 1), take(1, 0), failed(1, 1, "WER_TOO_HIGH")]],
    "aqaa": [[example(1), example(2, type="TQTA", vq06_q=None, vq06_a=None)]],
    "preferences": [[pair(1, "text"), pair(2, "audio")]],
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    decode = StageStats("decode", rows_in=3, rows_out=1, rejected=2, seconds_out=90.0, wall_seconds=1.5)
    voices = StageStats("voices", rows_in=4, rows_out=2, unused=2, seconds_in=40.0, wall_seconds=2.0)
    voices.unused_reasons["not_consented"] = 2
    rejects = [reject(1), reject(2), reject(3, stage="segment", code="NO_SPEECH", detail="no speech in 4 s")]
    return page_of(
        tmp_path_factory.mktemp("whole"), EVERYTHING, rejects=rejects, pipelines={"curate": pipeline([decode, voices])}
    )


def test_the_page_needs_nothing_else_and_runs_nothing(whole):
    assert not whole.all("script", "link", "iframe", "object", "embed", "img", "base", "form")
    addresses = [a[name] for _, a in whole.tags for name in ("src", "href", "data", "poster") if a.get(name)]
    assert addresses
    assert all(address.startswith(("data:audio/", "#")) for address in addresses)
    assert not [name for _, a in whole.tags for name in a if name.startswith("on")]
    assert not re.search(r"url\(|@import|https?://", whole.source)


def test_it_is_written_into_the_output_folder(tmp_path):
    run = made(tmp_path, {"segments": [[segment(1)]]})
    name = write_report(Storage(str(tmp_path)), run)
    assert name == "report/index.html"
    assert (tmp_path / name).read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_whatever_texts_and_names_hold_is_harmless(tmp_path):
    h = HOSTILE
    tables = {
        "segments": [[segment(1, text=h, language=h, speaker_id=h, codec=h, tokenizer_hash=h),
                      dropped(2, text=h) | {"reasons": [h]}]],
        "voices": [[voice(1, voice_id=h, consent_basis=h, licence=h, language=h, allowed_uses=[h])]],
        "candidates": [[take(0, 0, text=h, emotion=h, speed=h, dialect=h, heard=h, voice_id=h), failed(0, 1, h)]],
        "aqaa": [[example(1, axis=h, prompt_template=h, tokenizer_hash=h)]],
        "preferences": [[pair(1, "text", axis=h, prompt_text=h, chosen_text=h, rejected_text=h, scorer=h)]],
    }  # fmt: skip
    dead = {"shard": 0, "status": "dead", "reason": h, "attempts": 3}
    stats = StageStats(h, rows_in=1)
    stats.unused_reasons[h] = 1
    page = page_of(
        tmp_path / "a<script>", tables, state="incomplete", config={"name": h, "source": {"path": h}, h: h},
        rejects=[reject(1, detail=h, input_ref=h, exception=h)],
        pipelines={"curate": pipeline([stats], [dead])},
    )  # fmt: skip
    assert not page.all("script", "img")
    assert "<script" not in page.source.lower()
    assert "\x00" not in page.source
    assert page.text.count("<script>alert(1)</script>") >= 20
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_marked_personal_data_is_neither_shown_nor_played(tmp_path):
    text = "it is 415 555 2671 now"
    entry = {"kind": "PHONE", "text_start": 6, "text_length": 12, "start": 0, "num_samples": 9, "action": "mark"}
    rows = [segment(1, text=text, pii=[entry]), segment(2, text="good morning", pii=[])]
    page = page_of(tmp_path, {"segments": [rows]})
    assert "2671" not in page.source
    assert "it is [PHONE] now" in page.text and "good morning" in page.text
    assert page.source.count("data:audio/") == 1


def test_the_funnel_follows_the_hours(whole):
    assert whole.row("Listed")[1:3] == ["3", "–"]
    assert whole.row("Decoded")[1:3] == ["1", "1 min 30 s"]
    assert whole.row("Speech")[1:3] == ["1", "1 min 01 s"]
    assert whole.row("Segments")[1:3] == ["4", "40 s"]
    assert whole.row("Kept")[1:3] == ["3", "38 s"]
    assert whole.row("Voices")[1:3] == ["2", "10 s"]
    assert whole.row("Candidates")[1:3] == ["4", "4.0 s"]
    assert whole.row("Passing")[1:3] == ["2", "2.0 s"]
    assert whole.row("Selected")[1:3] == ["2", "2.0 s"]
    assert whole.row("AQAA")[1:3] == ["2", "3.0 s"]
    assert whole.row("Pairs")[1:3] == ["2", "–"]


def test_each_stage_tells_rows_rejects_and_speed(whole):
    assert whole.row("decode") == ["decode", "3", "1", "2", "0", "–", "1 min 30 s", "1.5 s", "× 60"]
    assert whole.row("voices", "4", "2")[4] == "2"
    assert whole.row("curate.voices") == ["curate.voices", "not_consented", "2"]


def test_rejects_are_counted_by_code_with_examples(whole):
    assert whole.row("curate.decode")[1:3] == ["NOT_AUDIO", "2"]
    assert "is not audio in/1.wav" in whole.row("curate.decode")[3]
    assert whole.row("curate.segment")[1:3] == ["NO_SPEECH", "1"]
    assert whole.row("TOO_NOISY")[1:3] == ["1", "25 %"]
    assert whole.row("WER_TOO_HIGH")[1:3] == ["1", "25 %"]


def test_voices_show_their_consent_record(whole):
    assert whole.row("v1")[1:4] == ["yes", "contract", "tts, clone"]
    assert whole.row("v2")[1:3] == ["no", "none on record"]


def test_tokens_are_counted_by_kind(whole):
    assert "8 text and special, 4 audio: 1 to 0.5" in whole.text
    assert "6 ids, 50 %" in whole.text
    assert whole.row("AQTAA")[1:3] == ["1", "50 %"]


def test_one_can_listen_to_every_kind_of_sample(whole):
    players = whole.all("audio")
    labels = [player["aria-label"].rsplit(" ", 1)[0] for player in players]
    wanted = {"segment", "dropped segment", "take", "failed take", "chosen answer", "rejected answer"}
    assert set(labels) == wanted
    assert all(player["src"].startswith("data:audio/flac;base64,ZkxhQ") for player in players)  # "fLaC"
    assert "(no transcript)" in whole.text


def test_charts_and_tables_can_be_read_aloud(whole):
    charts = whole.all("svg")
    shown = [chart for chart in charts if chart.get("aria-hidden") != "true"]
    assert len(shown) >= 8
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in shown)
    assert len(whole.all("title")) == 1 + len(shown)
    assert len(whole.all("desc")) == len(shown)
    assert all(cell.get("scope") for cell in whole.all("th"))
    assert len(whole.all("caption")) == len(whole.all("table"))


def test_links_inside_the_page_lead_somewhere(whole):
    ids = [attributes["id"] for _, attributes in whole.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in whole.all("a")} <= set(ids)


PARTIAL = [
    {},
    {"segments": [[]]},
    {"segments": [[segment(1)]]},
    {"candidates": [[take(0, 0)]]},
    {"candidates": [[]], "aqaa": [[]], "preferences": [[]], "recordings": [[]]},
]


@pytest.mark.parametrize("tables", PARTIAL)
def test_any_part_of_a_run_makes_a_page(tmp_path, tables):
    page = page_of(tmp_path, tables)
    assert {"hours", "stages", "listen", "measured", "control", "voices", "left-out", "tokens", "settings"} <= {
        attributes.get("id") for _, attributes in page.tags
    }


def test_nulls_are_said_to_be_not_measured(tmp_path):
    names = ("dnsmos_ovr", "snr_db", "speaking_rate", "f0_median_hz", "text", "language", "decision", "reasons")
    nothing = dict.fromkeys(names)
    page = page_of(tmp_path, {"segments": [[segment(1, **nothing), segment(2, dnsmos_ovr=float("nan")), segment(3)]]})
    assert "1 of 3 segments measured" in page.text
    assert page.row("unknown")[1] == "1"
    assert page.row("Kept")[1] == "2"


def test_dead_shards_are_named_with_their_reason(tmp_path):
    dead = {"shard": 2, "status": "dead", "reason": "process died (signal 9)", "attempts": 3}
    page = page_of(
        tmp_path, {"segments": [[segment(1)]]}, state="incomplete", pipelines={"curate": pipeline([], [dead], 3)}
    )
    assert "Incomplete" in page.text
    assert "curate: 2 of 3 shards committed, 1 dead" in page.text
    assert "curate, shard 2, 3 attempts: process died (signal 9)" in page.text


def test_a_damaged_part_is_named_and_the_rest_is_shown(tmp_path):
    run = made(tmp_path, {"segments": [[segment(1)], [segment(2), segment(3)]]})
    damaged = run["tables"]["segments"][0]["file"]
    (tmp_path / damaged).write_bytes(b"not arrow")
    page = Page(render(Storage(str(tmp_path)), run))
    assert f"{damaged} cannot be read" in page.text
    assert page.row("Segments")[1] == "2"


def test_asked_and_measured_are_compared_by_control(tmp_path):
    fast = [take(1, n, speed="fast2", rate_ratio=0.8, pitch_ratio=None) for n in range(2)]
    happy = [take(3, 0, emotion="happy", level=5, rate_ratio=1.0, pitch_ratio=1.2),
             failed(3, 1, "PITCH_OFF", emotion="happy", level=5, rate_ratio=1.0, pitch_ratio=1.2)]  # fmt: skip
    unknown = [take(5, 0, emotion="smug", rate_ratio=None, pitch_ratio=None)]
    page = page_of(tmp_path, {"candidates": [fast, happy + unknown]})
    #                               takes  tempo asked, measured, ratio, pitch asked, measured, ratio    WER  passed
    assert page.row("fast2") == ["fast2", "2", "× 1.45", "× 1.16", "0.80", "× 1.00", "–", "–", "0.00", "100 %"]
    assert page.row("happy")[1:10] == ["2", "× 1.30", "× 1.30", "1.00", "× 1.50", "× 1.80", "1.20", "0.00", "50 %"]
    assert page.row("smug")[1:7] == ["1", "–", "–", "–", "–", "–"]
    assert "whether a listener hears the emotion" in page.text


def test_the_same_rows_are_shown_however_they_are_cut_into_parts(tmp_path):
    rows = [segment(n) for n in range(12)] + [dropped(n) for n in range(20, 26)]
    one = page_of(tmp_path / "one", {"segments": [rows]})
    many = page_of(tmp_path / "many", {"segments": [rows[k::5] for k in range(5)]})
    assert [a["aria-label"] for a in one.all("audio")] == [a["aria-label"] for a in many.all("audio")]
    assert len(one.all("audio")) == 8


def test_prompts_are_shown_as_a_conversation():
    prompt = "<|BOT|>system\nBe brief.<|EOT|><|BOT|>human\nHow are you?<|EOT|><|BOT|>assistant\n"
    assert conversation(prompt) == "system: Be brief.\nhuman: How are you?"
    assert conversation("no template at all") == "no template at all"


def test_rejects_that_say_the_same_are_shown_once(tmp_path):
    rows = [reject(n, input_ref="in/same.wav") for n in range(5)]
    page = page_of(tmp_path, {"segments": [[segment(1)]]}, rejects=rows)
    assert page.row("curate.decode")[2:] == ["5", "is not audio in/same.wav"]


def test_samples_stay_within_the_budget():
    budget = Budget(left=1000)
    small, large = b"fLaC" + bytes(400), b"fLaC" + bytes(700)
    assert budget.embed({"bytes": small})[0].startswith("data:audio/flac;base64,")
    assert budget.embed({"bytes": large}) == (None, "audio left out to keep this page small")
    assert budget.embed(None) == (None, "no audio in the row")
    assert budget.embed({"bytes": b"<script>"}) == (None, "no audio in the row")
    assert PAGE_BYTES <= 8_000_000


class Counted(Storage):
    """A storage that counts the bytes read from it."""

    read = 0

    def open_arrow(self, name, size=None):
        file, counted = super().open_arrow(name, size), self

        class File:
            def read(self, size=-1):
                content = file.read(size)
                counted.read += len(content)
                return content

            def __getattr__(self, attribute):
                return getattr(file, attribute)

            def __enter__(self):
                return self

            def __exit__(self, *error):
                file.close()

        return File()


def test_audio_is_read_for_the_chosen_samples_only(tmp_path):
    random = np.random.default_rng(0)
    rows = [segment(n) | {"audio": {"bytes": b"fLaC" + random.bytes(4000), "path": None}} for n in range(64 * 20)]
    run = made(tmp_path, {"segments": [rows]})
    storage = Counted(str(tmp_path))
    render(storage, run)
    size = sum(path.stat().st_size for path in tmp_path.glob("segments/*.arrow"))
    assert size > 5_000_000
    assert 0 < storage.read < size * 0.35  # at most 4 of 20 batches with their audio, and the narrow columns


def test_passwords_are_hidden_and_tokenizers_are_not():
    config = {
        "tts": {"options": {"api_key": "k", "token": "t", "url": "u"}},
        "text_tokenizer": {"name": "bpe"},
        "n": None,
    }
    assert masked(config) == {
        "tts": {"options": {"api_key": "(hidden)", "token": "(hidden)", "url": "u"}},
        "text_tokenizer": {"name": "bpe"}, "n": None,
    }  # fmt: skip


@pytest.mark.parametrize(("seconds", "said"), [
    (None, "–"), (0, "0 s"), (0.004, "< 0.1 s"), (4.06, "4.1 s"), (59.4, "59 s"), (312, "5 min 12 s"),
    (3599.7, "1 h 00 min"), (7500, "2 h 05 min"), (3_600_000, "1,000 h"),
])  # fmt: skip
def test_durations_are_said_in_hours_and_minutes(seconds, said):
    assert wording.duration(seconds) == said


@given(st.lists(st.floats(-5, 15) | st.just(float("nan")), max_size=50))
def test_a_spread_knows_its_median_to_a_bin_and_counts_what_is_missing(values):
    spread = Spread(-5, 0.1, 200)
    for start in range(0, len(values), 7):
        spread.add(np.array(values[start : start + 7]))
    good = sorted(value for value in values if value == value)
    assert (spread.count, spread.missing) == (len(good), len(values) - len(good))
    if good:
        assert spread.median == pytest.approx(good[(len(good) - 1) // 2], abs=0.1001)
    else:
        assert spread.median is None


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=80), st.lists(st.floats(0, 10), max_size=80))
def test_bars_hold_every_value_once_and_charts_are_well_formed(first, second):
    spreads = [Spread(0, 0.05, 210), Spread(0, 0.05, 210)]
    for spread, values in zip(spreads, (first, second), strict=True):
        spread.add(np.array(values, float))
    coarse = bars(spreads)
    assert coarse.counts.sum(axis=1).tolist() == [len(first), len(second)]
    assert 8 <= coarse.counts.shape[1] <= 40
    chart = histogram("a < b", 'said "so" & more', coarse, spreads[0].median, [5.0])
    assert ElementTree.fromstring(chart).find("title").text == "a < b"


@given(st.floats(-1e3, 1e3), st.floats(0.01, 1e4))
def test_ticks_are_few_and_inside(low, span):
    found = ticks(low, low + span)
    assert 1 <= len(found) <= 7
    assert all(low - 1e-6 * span <= tick <= low + span * (1 + 1e-6) for tick in found)
