"""`python -m segport_export` is `seg-export`."""

import sys

from segport_export.cli import main

sys.exit(main())
