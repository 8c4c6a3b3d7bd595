"""The training of NeuFA: labels where phones are, joined utterances, a loss that falls, a file that aligns."""

import numpy as np
import pytest

from data_engine.models.neufa_features import HOP, normalised_mel
from data_engine.models.phones import PAUSE, TOKEN_IDS, TOKENS
from data_engine.training.aligned_batches import (
    NO_FRAME,
    AlignedBatches,
    AlignedSettings,
    Timed,
    collate,
    frame_labels,
    joined,
    timed,
)
from data_engine.training.speech.augment import AugmentSettings
from data_engine.training.speech.waves import Utterance as Said
from data_engine.training.speech.waves import load
from tests.training.conftest import TEXTS

torch = pytest.importorskip("torch")

from data_engine.models.neufa import NeuFA, attentions, export, turned  # noqa: E402
from data_engine.training.loop import LoopSettings  # noqa: E402
from data_engine.training.neufa import NeufaSettings, label_losses, off_diagonal, train  # noqa: E402


def settings(cache, output, **loop):
    batches = AlignedSettings(weights={"espeak": 1}, seconds=5, pool=6, augment=AugmentSettings(mask=0))
    return NeufaSettings(
        output=output, cache=cache, batches=batches, tests=("espeak",), test_utterances=1,
        loop=LoopSettings(rate=3e-3, warmup=5, log_steps=1, **loop),
    )  # fmt: skip


def test_pauses_are_no_phones_and_times_stretch():
    pause = TOKEN_IDS[PAUSE]
    said = Said(np.zeros(3200, np.float32), np.array([pause, 5, 6, pause]), np.array([800, 1600, 2400, 3200]))
    assert timed(said).phones.tolist() == [5, 6]
    assert timed(said).times.tolist() == [[800, 1600], [1600, 2400]]
    assert timed(said, 2.0).times.tolist() == [[1600, 3200], [3200, 4800]]
    assert len(timed(said, 2.0).wave) == 6400


def test_joined_utterances_have_silence_around_them():
    one = Timed(np.ones(1600, np.float32), np.array([5]), np.array([[0, 1600]]))
    two = Timed(np.ones(3200, np.float32), np.array([6, 7]), np.array([[0, 1600], [1600, 3200]]))
    both = joined([one, two], [160, 320, 480])
    assert len(both.wave) == 160 + 1600 + 320 + 3200 + 480
    assert both.wave.sum() == 4800
    assert both.phones.tolist() == [5, 6, 7]
    assert both.times.tolist() == [[160, 1760], [2080, 3680], [3680, 5280]]


def test_labels_are_positions_and_the_number_of_phones_in_pauses():
    times = np.array([[160, 480], [480, 640], [960, 1280]])
    assert frame_labels(times, 10).tolist() == [3, 0, 0, 1, 3, 3, 2, 2, 3, 3]


def test_a_step_always_gives_the_same_batch(cache):
    batches = AlignedBatches(load(cache, ["espeak"]), settings(cache, cache).batches, 3)
    one, other = batches.batch(7), batches.batch(7)
    assert np.array_equal(one.mel, other.mel)
    assert np.array_equal(one.labels, other.labels)
    assert (one.labels.max(axis=1) <= one.counts).all()
    assert all((row[count:] == NO_FRAME).all() for row, count in zip(one.labels, one.lengths, strict=True))


def test_an_utterance_is_heard_alike_with_and_without_padding(cache):
    part = load(cache, ["espeak"])[0]
    examples = [(normalised_mel(said.wave), said) for said in (timed(part.utterance(n)) for n in range(2))]
    torch.manual_seed(0)
    model = NeuFA(len(TOKENS)).eval()
    found = []
    for batch in (collate(examples), collate(examples[:1]), collate(examples[1:])):
        counts, lengths = torch.from_numpy(batch.counts), torch.from_numpy(batch.lengths)
        text, speech = model.encode(torch.from_numpy(batch.phones), torch.from_numpy(batch.mel), counts, lengths)
        found.append(attentions(model.scores(text, speech, counts, lengths), counts, lengths))
    for alone, row in ((1, 0), (2, 1)):
        phones, frames = len(examples[row][1].phones), len(examples[row][0])
        for together, single in zip(found[0], found[alone], strict=True):
            torch.testing.assert_close(together[row, :phones, :frames], single[0, :-1, :-1], atol=1e-3, rtol=1e-3)


def test_places_are_turned_inside_their_padding():
    places = torch.arange(8.0).reshape(2, 4, 1)
    assert turned(places, torch.tensor([4, 2]))[..., 0].tolist() == [[3, 2, 1, 0], [5, 4, 6, 7]]


def test_the_diagonal_costs_nothing_and_its_corners_most():
    away = off_diagonal(torch.tensor([4]), torch.tensor([4]), 4, 4)[0]
    assert torch.diagonal(away).tolist() == [0, 0, 0, 0]
    assert away[0, 3] > away[0, 2] > away[0, 1] > 0
    torch.testing.assert_close(away, away.flip(0, 1))


def test_an_attention_that_is_right_has_no_frame_loss():
    labels = torch.tensor([[2, 0, 0, 1, NO_FRAME]])
    scores = torch.full((1, 3, 6), -30.0)
    for frame, row in enumerate([2, 0, 0, 1]):
        scores[0, row, frame] = 30.0
    counts, lengths = torch.tensor([2]), torch.tensor([4])
    frames, times = label_losses(*attentions(scores, counts, lengths), labels, counts)
    assert frames.item() == pytest.approx(0, abs=1e-4)
    assert times.item() == pytest.approx(np.log(2) / 2, abs=1e-3)  # two frames of the first phone, one of the second


def test_a_training_learns_goes_on_and_exports(cache, tmp_path, capsys):
    from data_engine.backends.aligner_neufa import NeufaAligner

    train(settings(cache, tmp_path, steps=4))
    train(settings(cache, tmp_path, steps=8))
    lines = [line.split(",") for line in (tmp_path / "losses.csv").read_text().splitlines()]
    assert [int(line[0]) for line in lines[1:]] == list(range(1, 9))
    frames = np.array([float(line[lines[0].index("frames")]) for line in lines[1:]])
    assert frames[-3:].mean() < frames[:3].mean()
    assert "espeak/espeak-ng" in capsys.readouterr().out
    aligner = NeufaAligner(path=str(tmp_path))
    aligner.open()
    found = aligner.align([load(cache, ["espeak"])[0].utterance(0).wave], [TEXTS[0]], "en")[0]
    assert [word.text for word in found.words] == TEXTS[0].split()


def test_the_exported_file_gives_what_the_network_gives(tmp_path, cache):
    import onnxruntime

    torch.manual_seed(1)
    model, said = NeuFA(len(TOKENS)).eval(), timed(load(cache, ["espeak"])[0].utterance(1))
    export(model, tmp_path / "aligner.onnx")
    mel = normalised_mel(said.wave)
    assert mel.shape == (1 + len(said.wave) // HOP, 40)
    session = onnxruntime.InferenceSession(tmp_path / "aligner.onnx")
    w1, w2 = session.run(None, {"mel": mel[None], "phones": said.phones[None]})
    counts, lengths = torch.tensor([len(said.phones)]), torch.tensor([len(mel)])
    with torch.inference_mode():
        text, speech = model.encode(torch.from_numpy(said.phones)[None], torch.from_numpy(mel)[None], counts, lengths)
        expected = attentions(model.scores(text, speech, counts, lengths), counts, lengths)
    np.testing.assert_allclose(w1, expected[0][0, :, :-1].numpy(), atol=5e-3)
    np.testing.assert_allclose(w2, expected[1][0, :, :-1].numpy(), atol=5e-3)
