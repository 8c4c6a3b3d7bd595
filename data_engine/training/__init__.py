"""Commands that make the training corpus and train the project's own small speech models."""
