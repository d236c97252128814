"""`python -m shards VERB`: see shards/cli.py."""

from __future__ import annotations

import sys

from shards.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
