"""How bytes become canonical audio: containers, readers, levels, mixing, resampling."""
