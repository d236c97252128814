"""The version of livetrain, without importing more."""

VERSION = "0.2.0"
