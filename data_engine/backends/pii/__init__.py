"""Role `pii`: finds personal data in transcripts, written or spoken."""
