"""`python -m descentlab` is the command `descentlab`."""

import sys

from descentlab.cli import main

sys.exit(main())
