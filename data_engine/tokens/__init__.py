"""Token ids of dual-codebook speech models: layout, interleaving, templates, records, preferences."""
