"""A generative speech data engine: raw speech in, Arrow shards for spoken-dialogue models out."""

__version__ = "0.1.0"
