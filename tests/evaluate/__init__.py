"""What the engine reaches on real speech, measured; `make evaluate` prints the tables. Not part of the tests."""
