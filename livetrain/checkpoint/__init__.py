"""Checkpoint folders, the files in them, and writing them while training continues."""
