"""`python -m livetrain`: the same as `livetrain`."""

import sys

from livetrain.cli import main

sys.exit(main())
