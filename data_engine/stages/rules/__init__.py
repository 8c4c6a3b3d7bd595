"""The pure functions behind the verbs: what is decided, apart from when."""
