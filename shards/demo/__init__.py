"""The synthetic corpus that the quickstart and the tests use."""
