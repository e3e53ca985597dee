"""Training clips: their shards, the windows cut from them, and the synthetic actors."""
