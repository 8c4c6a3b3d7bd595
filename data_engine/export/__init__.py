"""Shards to formats of other people."""
