"""Remote stores: how they are opened, read piece by piece, and cleared."""
