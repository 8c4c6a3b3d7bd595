"""Privacy: personal data is marked, bleeped or rejected; what is beside it stays as it was, bit for bit."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.backends.catalog import BackendCache
from data_engine.backends.protocols import PiiSpan
from data_engine.core.config import Settings
from data_engine.core.errors import ConfigError
from data_engine.core.harness import StageRun
from data_engine.core.schema import load_schema
from data_engine.core.stage import Worker
from data_engine.io.audio import decode_bytes, encode_flac
from data_engine.stages.catalog import build_stage
from data_engine.stages.rules.bleep import Tone, bleep, share_of_tone
from data_engine.stages.rules.passages import find_passages, redact
from data_engine.stages.rules.policy import Policy, check_policy, evaluate

RATE = 16000
CACHE = BackendCache()
SECRET = "four one five five five five two six seven one"
SENTENCE = f"my number is {SECRET} thank you"
MARGIN, FADE = 800, 160


def noise(num_samples, seed=0):
    """Something as broad as speech, in 16-bit steps as every segment is."""
    wave = np.random.default_rng(seed).normal(0, 0.1, num_samples)
    return (np.rint(np.clip(wave, -0.9, 0.9) * 32768) / 32768).astype(np.float32)


def timed(text, length=4000, gap=400):
    """Words of a text, one after the other, and how many samples that takes."""
    words = [
        {"text": word, "start": 8000 + n * (length + gap), "num_samples": length} for n, word in enumerate(text.split())
    ]
    return words, words[-1]["start"] + length + 8000


def segment(name="a", text=SENTENCE, language="en", **columns):
    words, num_samples = timed(text or "none")
    wave = noise(num_samples)
    row = {
        "segment_id": name, "text": text, "language": language, "words": words, "num_samples": num_samples,
        "sample_rate": RATE, "audio": {"bytes": encode_flac(wave, RATE), "path": f"{name}.flac"},
    }  # fmt: skip
    return {**row, **columns}


def privacy(folder, *segments, backend=CACHE, **config):
    """Runs the stage over whole rows and returns them by id, with the run."""
    stage = build_stage("privacy", config)
    stage.open(Worker(folder, backend))
    columns = ("text", "language", "words", "num_samples", "sample_rate", "audio", "phones")
    batch = load_schema("segment").pick(*columns).batch(list(segments))
    run = StageRun(stage, "signature")
    rows = [row for found in run.run([batch]) for row in found.to_pylist()]
    return {row["segment_id"]: row for row in rows}, run


def sound(row):
    samples, rate = decode_bytes(row["audio"]["bytes"])
    assert rate == RATE
    return samples[0]


def everything(run):
    """All that leaves the stage beside its rows."""
    return json.dumps([run.rejects, run.stats.as_dict()])


def test_marking_says_what_and_where_and_changes_nothing(tmp_path):
    plain = segment("plain", "good morning to you")
    rows, run = privacy(tmp_path, segment(), plain, segment("silent", None))
    words, _ = timed(SENTENCE)
    assert rows["a"]["pii"] == [
        {
            "kind": "PHONE", "text_start": 13, "text_length": len(SECRET), "start": words[3]["start"],
            "num_samples": words[12]["start"] + 4000 - words[3]["start"], "action": "mark",
        }
    ]  # fmt: skip
    assert {key: rows["a"][key] for key in ("text", "words", "audio")} == {
        key: segment()[key] for key in ("text", "words", "audio")
    }
    assert (rows["plain"]["pii"], rows["silent"]["pii"]) == ([], None)
    assert dict(run.stats.metrics) == {"pii_PHONE": 1, "pii_segments": 1}


def test_marking_needs_no_audio():
    assert "audio" not in build_stage("privacy", {}).spec.consumes.names


def test_bleeping_takes_words_out_of_text_and_words(tmp_path):
    rows, _ = privacy(tmp_path, segment(), action="bleep")
    row, (words, _) = rows["a"], timed(SENTENCE)
    assert row["text"] == "my number is [PHONE] thank you"
    start, end = words[3]["start"], words[12]["start"] + 4000
    tagged = {"text": "[PHONE]", "start": start, "num_samples": end - start}
    assert row["words"] == [*words[:3], tagged, *words[13:]]
    (entry,) = row["pii"]
    assert row["text"][entry["text_start"] : entry["text_start"] + entry["text_length"]] == "[PHONE]"
    assert (entry["start"], entry["num_samples"], entry["action"]) == (start, end - start, "bleep")
    assert all(word not in str(row["pii"]) + row["text"] for word in SECRET.split())


def test_bleeped_samples_hold_the_tone_and_nothing_of_the_speech(tmp_path):
    rows, _ = privacy(tmp_path, segment(), action="bleep")
    before, after = sound(segment()), sound(rows["a"])
    words, _ = timed(SENTENCE)
    low, high = words[3]["start"] - MARGIN, words[12]["start"] + 4000 + MARGIN
    tone, speech = after[low:high].astype(float), before[low:high].astype(float)
    assert abs(np.corrcoef(tone, speech)[0, 1]) < 0.02
    again = sound(privacy(tmp_path, segment(audio=other_voice()), action="bleep")[0]["a"])
    assert np.array_equal(again[low:high], after[low:high]), "the tone does not depend on what it covers"
    spectrum = np.abs(np.fft.rfft(tone * np.hanning(len(tone)))) ** 2
    near = np.abs(np.fft.rfftfreq(len(tone), 1 / RATE) - 1000) < 10
    assert spectrum[near].sum() > 0.9999 * spectrum.sum()
    assert 20 * np.log10(np.sqrt(np.mean(tone**2))) == pytest.approx(-20, abs=0.05)


def other_voice():
    return {"bytes": encode_flac(noise(timed(SENTENCE)[1], seed=7), RATE), "path": None}


def test_what_lies_beyond_margin_and_fade_is_the_same_bit_for_bit(tmp_path):
    rows, _ = privacy(tmp_path, segment(), segment("plain", "good morning to you"), action="bleep")
    before, after = sound(segment()), sound(rows["a"])
    words, _ = timed(SENTENCE)
    low, high = words[3]["start"] - MARGIN - FADE, words[12]["start"] + 4000 + MARGIN + FADE
    assert np.array_equal(after[:low], before[:low])
    assert np.array_equal(after[high:], before[high:])
    assert len(after) == len(before)
    assert rows["plain"]["audio"] == segment("plain", "good morning to you")["audio"], "not even encoded again"


def test_without_word_times_the_whole_segment_goes(tmp_path):
    rows, _ = privacy(tmp_path, segment(words=None, text="call 415-555-2671 or bob@example.com"), action="bleep")
    row = rows["a"]
    assert (row["text"], row["words"]) == ("[PHONE] [EMAIL]", None)
    ((start, length),) = {(entry["start"], entry["num_samples"]) for entry in row["pii"]}
    assert (start, length) == (0, row["num_samples"])
    assert np.abs(np.fft.rfft(sound(row)))[: 900 * len(sound(row)) // RATE].max() < 1
    marked, _ = privacy(tmp_path, segment(words=None, text="call 415-555-2671 now"))
    assert [(e["text_start"], e["text_length"], e["start"]) for e in marked["a"]["pii"]] == [(5, 12, 0)]


def test_phones_under_the_tone_go_too(tmp_path):
    words, _ = timed(SENTENCE)
    phones = [{**word, "text": word["text"][0]} for word in words]
    rows, _ = privacy(tmp_path, segment(phones=phones), action="bleep", with_phones=True)
    # Words are 400 samples apart and the margin is 800: one phone on either side is partly under the tone.
    assert rows["a"]["phones"] == [*phones[:2], *phones[14:]]


def test_rejected_segments_say_how_much_and_never_what(tmp_path):
    rows, run = privacy(tmp_path, segment(), segment("plain", "good morning to you"), action="reject")
    assert list(rows) == ["plain"]
    assert [(r["record_id"], r["code"], r["detail"]) for r in run.rejects] == [
        ("a", "PII", "the transcript holds 1 PHONE")
    ]


@pytest.mark.parametrize("action", ["mark", "bleep", "reject"])
def test_nothing_that_was_found_is_repeated_outside_the_row(tmp_path, action, capfd, caplog):
    texts = [SENTENCE, "mail bob@example.com now", "card 4111 1111 1111 1111 ok"]
    damaged = segment("d", audio={"bytes": b"no sound" * 50, "path": None})
    segments = [segment(str(n), text) for n, text in enumerate(texts)]
    _, run = privacy(tmp_path, *segments, damaged, action=action)
    said = everything(run) + caplog.text + "".join(capfd.readouterr())
    assert not any(secret in said for secret in ("five", "4111", "bob", "example.com"))


class Chatty:
    """A detector whose errors quote what they were given, as those of many libraries do."""

    def find(self, texts, language):
        if any("four" in text for text in texts):
            raise ValueError(f"cannot parse {texts!r}")
        return [[] for _ in texts]


def test_an_error_of_the_back_end_is_not_quoted(tmp_path):
    rows, run = privacy(tmp_path, segment(), segment("b", "hello there"), backend=lambda *_: Chatty())
    assert list(rows) == ["b"]
    assert [(r["record_id"], r["code"]) for r in run.rejects] == [("a", "BACKEND_FAILED")]
    assert "ValueError" in run.rejects[0]["detail"]
    assert "four" not in everything(run)


def test_only_the_kinds_and_the_certainty_asked_for(tmp_path):
    text = "mail bob@example.com or take 4155552671 with you"
    kinds = lambda rows: [entry["kind"] for entry in rows["a"]["pii"]]  # noqa: E731
    assert kinds(privacy(tmp_path, segment(text=text))[0]) == ["EMAIL"]
    assert kinds(privacy(tmp_path, segment(text=text), min_score=0.3)[0]) == ["EMAIL", "PHONE"]
    assert kinds(privacy(tmp_path, segment(text=text), min_score=0.3, kinds=["PHONE"])[0]) == ["PHONE"]
    with pytest.raises(ConfigError, match="action"):
        build_stage("privacy", {"action": "whisper"})


def test_the_shipped_policies_drop_what_is_marked_and_tts_what_is_bleeped(tmp_path):
    rule = {"column": "pii.action", "lacks": "mark", "reason": "PII"}
    policy = Policy.model_validate({"name": "p", "version": 1, "rules": [rule]})
    check_policy(policy, load_schema("segment"))
    entry = {"kind": "PHONE", "text_start": 0, "text_length": 1, "start": 0, "num_samples": 1}
    found = [None, [], [{**entry, "action": "bleep"}], [{**entry, "action": "bleep"}, {**entry, "action": "mark"}]]
    rows = [{"segment_id": str(n), "pii": value} for n, value in enumerate(found)]
    batch = load_schema("segment").pick("pii").batch(rows)
    assert evaluate(policy, batch)[0].to_pylist() == ["keep", "keep", "keep", "drop"]
    assert evaluate(policy, batch.slice(2))[0].to_pylist() == ["keep", "drop"]
    assert evaluate(policy, batch.slice(1))[1].to_pylist() == [[], [], ["PII"]]
    wrong = Policy.model_validate({"name": "p", "version": 1, "rules": [{**rule, "column": "pii.colour"}]})
    with pytest.raises(ConfigError, match=r"pii\.colour"):
        check_policy(wrong, load_schema("segment"))


def spans_of(text, *finds):
    return [PiiSpan("X", text.index(find), text.index(find) + len(find), 0.9) for find in finds]


def test_words_may_differ_from_the_text_in_case_and_punctuation():
    text = "It's B-O-B, right?"
    words = [{"text": w, "start": 100 * n, "num_samples": 100} for n, w in enumerate(["its", "bob", "right"])]
    (passage,) = find_passages(text, words, 300, spans_of(text, "B-O-B"))
    assert (passage.words, passage.samples) == ((1, 2), (100, 200))


def test_a_passage_is_made_of_whole_words():
    words = [{"text": w, "start": 100 * n, "num_samples": 100} for n, w in enumerate(["打", "电话一三八", "吧"])]
    (passage,) = find_passages("打电话一三八吧", words, 300, spans_of("打电话一三八吧", "一三八"))
    assert (passage.text, passage.words, passage.samples) == ((1, 6), (1, 2), (100, 200))


def test_words_without_times_reach_to_the_next_ones_with():
    text = "call 555 0199 now please"
    words = [
        {"text": w, "start": s, "num_samples": 50}
        for w, s in (("call", 0), ("five", 100), ("five", 200), ("now", 900), ("please", 1000))
    ]
    (passage,) = find_passages(text, words, 1100, spans_of(text, "555 0199"))
    assert (passage.words, passage.samples) == ((1, 3), (50, 900))
    nothing_between = [words[0], {**words[3], "start": 50}]
    (passage,) = find_passages("call 555 now", nothing_between, 1100, spans_of("call 555 now", "555"))
    assert (passage.words, passage.samples) == (None, (0, 1100))


WORD = st.text(alphabet="abcdéß四五0123456789.,'", min_size=1, max_size=6)


@given(st.lists(st.tuples(WORD, st.booleans()), min_size=1, max_size=12), st.data())
def test_text_outside_the_spans_never_changes(pairs, data):
    text = " ".join(word for word, _ in pairs)
    words = [{"text": w, "start": 100 * n, "num_samples": 90} for n, (w, known) in enumerate(pairs) if known]
    first = data.draw(st.integers(0, len(text) - 1))
    last = data.draw(st.integers(first + 1, len(text)))
    passages = find_passages(text, words, 100 * len(pairs), [PiiSpan("X", first, last, 0.9)])
    (passage,), done = passages, redact(text, words, passages)
    assert passage.text[0] <= first and last <= passage.text[1]
    assert 0 <= passage.samples[0] < passage.samples[1] <= 100 * len(pairs)
    if passage.words is None:
        assert (done.text, done.words) == ("[X]", None)
        return
    assert done.text == text[: passage.text[0]] + "[X]" + text[passage.text[1] :]
    low, high = passage.words
    assert done.words[:low] == words[:low] and done.words[low + 1 :] == words[high:]
    for word in words[low:high]:
        assert passage.samples[0] <= word["start"] and word["start"] + word["num_samples"] <= passage.samples[1]


@given(
    st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 800)), max_size=4),
    st.integers(0, 900), st.integers(0, 200),
)  # fmt: skip
def test_the_tone_covers_each_interval_and_its_margin_and_ends_with_the_fade(starts, margin, fade):
    intervals = [(start, start + length) for start, length in starts]
    share = share_of_tone(6000, intervals, margin, fade)
    at = np.arange(6000)
    inside, near = np.zeros(6000, bool), np.zeros(6000, bool)
    for start, end in intervals:
        inside |= (at >= start - margin) & (at < end + margin)
        near |= (at >= start - margin - fade) & (at < end + margin + fade)
    assert (share[inside] == 1).all() and (share[~near] == 0).all()
    wave = noise(6000)
    assert np.array_equal(bleep(wave, RATE, [], Tone()), wave)


def test_the_settings_of_the_tone_are_checked():
    assert issubclass(Tone, Settings)
    with pytest.raises(ConfigError, match="dbfs"):
        build_stage("privacy", {"tone": {"dbfs": 0.0}})


def test_shards_from_before_the_column_are_read():
    field = next(field for field in load_schema("segment").fields if field.name == "pii")
    assert field.nullable
    assert pa.types.is_list(field.arrow().type)
