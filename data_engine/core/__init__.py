"""Schemas, the stage contract, the harness, plans and signatures. Knows no audio and no models."""
