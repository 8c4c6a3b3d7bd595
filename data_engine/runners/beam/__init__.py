"""The Beam runner: shards as a linear Beam pipeline, global steps as GroupByKey and Combine."""

from data_engine.runners.beam.options import BeamOptions, beam_arguments
from data_engine.runners.beam.runner import BeamRunner

__all__ = ["BeamOptions", "BeamRunner", "beam_arguments"]
