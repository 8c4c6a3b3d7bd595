"""The training corpus: who says what, with which phones, and how it is disturbed."""
