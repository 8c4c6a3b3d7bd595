"""Small diarization pipelines in pyannote.audio's own layout: config.yaml, and checkpoints the library reads."""

import os

import numpy as np
import yaml

os.environ.setdefault("PYANNOTE_METRICS_ENABLED", "false")  # the test imports the library, too

RATE = 16000
WINDOW = 2.0
DIMENSIONS = 16
LOW, HIGH = (0.5, 2.8), (2.2, 4.4)
"""When the two voices of `dialogue` speak, in seconds; between the bounds both do."""
POWERSET = [set(), {0}, {1}, {2}, {0, 1}, {0, 2}, {1, 2}]


def dialogue(seconds=5.0, seed=0):
    """Returns two voices in silence, a low buzz and high noise, float32 [samples]."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    low = sum(np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 12))
    high = np.diff(rng.normal(0, 1, len(time) + 2), 2)
    active = [(time >= start) & (time < end) for start, end in (LOW, HIGH)]
    return (0.15 * low * active[0] + 0.05 * high * active[1]).astype(np.float32)


def write_community(folder, wave=None, **params):
    """Writes the layout of community-1: everything in one folder, VBx clustering with PLDA.

    Args:
        folder: Where.
        wave: A `dialogue` whose voices the models are to tell apart; else their weights are random.
        params: Further parameters of the pipeline.
    """
    write_segmentation(folder / "segmentation", wave)
    write_embedding(folder / "embedding", wave)
    (folder / "plda").mkdir()
    nothing, same = np.zeros(DIMENSIONS), np.eye(DIMENSIONS)
    np.savez(folder / "plda" / "xvec_transform.npz", mean1=nothing, mean2=nothing, lda=same)
    np.savez(folder / "plda" / "plda.npz", mu=nothing, tr=3 * same, psi=9 + same.sum(0))
    write_config(folder, {
        "dependencies": {"pyannote.audio": "4.0.0"},
        "pipeline": {"name": "pyannote.audio.pipelines.SpeakerDiarization", "params": {
            "clustering": "VBxClustering", "segmentation": "$model/segmentation", "segmentation_batch_size": 32,
            "embedding": "$model/embedding", "embedding_batch_size": 32, "embedding_exclude_overlap": True,
            "plda": "$model/plda", **params,
        }},
        "params": {"clustering": {"threshold": 0.6, "Fa": 0.07, "Fb": 0.8}, "segmentation": {"min_duration_off": 0.0}},
    })  # fmt: skip


def write_three(folder, segmentation, embedding, **params):
    """Writes the layout of speaker-diarization-3.1: a config that names models elsewhere, and no PLDA."""
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, {
        "version": "3.1.0",
        "pipeline": {"name": "pyannote.audio.pipelines.SpeakerDiarization", "params": {
            "clustering": "AgglomerativeClustering", "segmentation": segmentation, "segmentation_batch_size": 32,
            "embedding": embedding, "embedding_batch_size": 32, "embedding_exclude_overlap": True, **params,
        }},
        "params": {"clustering": {"method": "centroid", "min_cluster_size": 12, "threshold": 0.7},
                   "segmentation": {"min_duration_off": 0.0}},
    })  # fmt: skip


def write_config(folder, config):
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def write_segmentation(folder, wave=None):
    """Writes a PyanNet with a powerset of three speakers, at most two at once."""
    import torch
    from pyannote.audio.core.task import Problem, Resolution, Specifications
    from pyannote.audio.models.segmentation import PyanNet

    torch.manual_seed(0)
    lstm = {"hidden_size": 48, "num_layers": 1, "bidirectional": True, "monolithic": True, "dropout": 0.0}
    model = PyanNet(lstm=lstm, linear={"hidden_size": 256, "num_layers": 1})
    model.specifications = Specifications(
        problem=Problem.MONO_LABEL_CLASSIFICATION, resolution=Resolution.FRAME, duration=WINDOW, warm_up=(0.0, 0.0),
        classes=["speaker#1", "speaker#2", "speaker#3"], powerset_max_classes=2, permutation_invariant=True,
    )  # fmt: skip
    model.build()
    model.eval()
    if wave is not None:
        _teach(model, wave)
    _save(model, folder)


def write_embedding(folder, wave=None, wespeaker=False):
    """Writes a speaker embedding, of x-vectors or, as the published pipelines have it, WeSpeaker's ResNet34."""
    import torch
    from pyannote.audio.core.task import Problem, Resolution, Specifications
    from pyannote.audio.models.embedding import WeSpeakerResNet34, XVectorSincNet

    torch.manual_seed(1)
    model = WeSpeakerResNet34() if wespeaker else XVectorSincNet(dimension=DIMENSIONS)
    model.specifications = Specifications(problem=Problem.REPRESENTATION, resolution=Resolution.CHUNK, duration=WINDOW)
    model.eval()
    if wave is not None:
        _teach_voices(model, wave)
    _save(model, folder)


def _save(model, folder):
    """Writes what Lightning writes of a model of pyannote.audio."""
    import lightning
    import torch

    checkpoint = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams), "epoch": 0,
                  "global_step": 0, "pytorch-lightning_version": lightning.__version__}  # fmt: skip
    model.on_save_checkpoint(checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(checkpoint, folder / "pytorch_model.bin")


def _windows(wave):
    """Returns every window as the pipeline cuts them, float32 [windows, 1, samples], and their starts in seconds."""
    import torch

    window, step = int(WINDOW * RATE), int(WINDOW * RATE / 10)
    padded, starts = np.pad(wave, (0, window)), range(0, len(wave), step)
    return torch.stack([torch.from_numpy(padded[s : s + window])[None] for s in starts]), np.array(starts) / RATE


def _active(times):
    """Returns whether each voice speaks, [..., 2]."""
    return np.stack([(times >= start) & (times < end) for start, end in (LOW, HIGH)], axis=-1)


def _set(layer, inputs, targets):
    """Sets a linear layer to the least squares from inputs to targets."""
    import torch

    inputs = torch.cat([inputs.double(), torch.ones(len(inputs), 1, dtype=torch.float64)], 1)
    solved = torch.linalg.lstsq(inputs, targets.double(), driver="gelsd").solution.float()
    layer.weight.data.copy_(solved[:-1].T)
    layer.bias.data.copy_(solved[-1])


def _inputs(model, layer, *arguments):
    """Returns what reaches a layer, [..., features]."""
    import torch

    seen = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(*arguments)
    hook.remove()
    return seen[0].reshape(-1, seen[0].shape[-1])


def _teach(model, wave):
    """Makes a segmentation say who of `dialogue` speaks in every window."""
    import torch

    windows, starts = _windows(wave)
    field = model.receptive_field
    frames = field.start + field.duration / 2 + field.step * np.arange(model.num_frames(windows.shape[-1]))
    active = _active(starts[:, None] + frames).reshape(-1, 2).tolist()
    classes = [POWERSET.index({number for number, speaks in enumerate(row) if speaks}) for row in active]
    targets = torch.nn.functional.one_hot(torch.tensor(classes), len(POWERSET))
    _set(model.classifier, _inputs(model, model.classifier, windows), 20 * targets - 10)


def _teach_voices(model, wave):
    """Makes an embedding give each voice of `dialogue` a direction of its own, where it speaks alone."""
    import torch

    windows, starts = _windows(wave)
    active = _active(starts[:, None] + np.arange(0, WINDOW, 0.02))
    alone = active & (active.sum(axis=-1, keepdims=True) == 1)
    chosen = [(w, voice) for w, voice in np.ndindex(len(windows), 2) if alone[w, :, voice].sum() >= 10]
    masks = torch.tensor(np.stack([alone[w, :, voice] for w, voice in chosen]), dtype=torch.float32)
    inputs = _inputs(model, model.embedding, windows[[w for w, _ in chosen]], masks)
    targets = torch.nn.functional.one_hot(torch.tensor([voice for _, voice in chosen]), DIMENSIONS)
    _set(model.embedding, inputs, targets)
