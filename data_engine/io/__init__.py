"""Storage, Arrow shards, audio decoding and sources of recordings."""
