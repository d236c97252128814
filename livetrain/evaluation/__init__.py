"""Scoring a split, and the verdict at the end of a run."""
