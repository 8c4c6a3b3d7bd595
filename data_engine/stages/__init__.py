"""One module per verb of the engine."""
