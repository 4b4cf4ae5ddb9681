"""`python -m descentlab` is the command `descentlab`."""

import sys

from descentlab.cli.main import main

sys.exit(main())
