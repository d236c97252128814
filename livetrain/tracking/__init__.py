"""The run directory, metrics.jsonl, Weights & Biases."""
