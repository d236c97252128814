"""Measurements, each against a limit or another program on the same work: `livetrain bench NAME`.

A bench is one module here with `run(options) -> Report`. What they share: `clips` makes videos to measure with, `sides`
runs the competitors side by side, `report` writes the table with command, versions and hardware.
"""
