"""`python -m descentlab` is the command `descentlab`."""

import sys

from descentlab.harness.cli import main

sys.exit(main())
