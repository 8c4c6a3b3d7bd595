"""Pipelines: composition of stages only."""
