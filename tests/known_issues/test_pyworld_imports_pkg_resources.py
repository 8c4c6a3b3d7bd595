"""pyworld 0.3.5 imports pkg_resources, which setuptools 81 and later no longer have.

`models.world.load_world` loads the compiled module alone, so pitch works without pinning setuptools.
"""

import numpy as np

from data_engine.models.world import load_world


def test_world_measures_the_pitch_of_a_tone_without_pkg_resources():
    rate, hertz = 16000, 200.0
    time = np.arange(rate) / rate
    buzz = sum(np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 9))
    pitch, _ = load_world("pitch").dio(buzz, rate)
    assert abs(np.median(pitch[pitch > 0]) - hertz) < 2
