"""State dicts of torchaudio's networks at small widths, as its bundles hold them."""

HDEMUCS = {"channels": 8, "depth": 3, "nfft": 64}
SQUIM = {"feat_dim": 16, "d_model": 16, "nhead": 2, "hidden_dim": 8, "num_blocks": 1}
SOURCES = ("drums", "bass", "other", "vocals")


def hdemucs(sources=SOURCES):
    """Returns an untrained HDEMUCS."""
    import torch
    from torchaudio.models import HDemucs

    torch.manual_seed(0)
    return HDemucs(list(sources), **HDEMUCS).eval()


def squim():
    """Returns an untrained SQUIM objective network."""
    import torch
    from torchaudio.models import squim_objective_model

    torch.manual_seed(0)
    base = {"win_len": 64, "rnn_type": "LSTM", "chunk_size": 71}
    return squim_objective_model(**base, **SQUIM).eval()


def write(network, path):
    """Writes the state dict of a network, by the ending of the name as safetensors or as torch's own file."""
    import torch
    from safetensors.torch import save_file

    state = {name: value.clone() for name, value in network.state_dict().items()}
    (save_file if path.suffix == ".safetensors" else torch.save)(state, path)
    return path
