"""How a source becomes a list of items and an item becomes a local file."""
