"""Measures the shipped small speech models: `python -m data_engine.training.evaluation`."""
