"""The training loop, its step, and resuming."""
