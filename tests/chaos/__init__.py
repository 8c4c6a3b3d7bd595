"""Chaos: processes of a real run are killed at seeded random moments; nothing may be lost, doubled or changed."""
