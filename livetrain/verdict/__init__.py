"""Scores to metrics, thresholds, and intervals over people. Imports no torch."""
