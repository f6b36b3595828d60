"""`python -m segport_train` is `seg-train`."""

import sys

from segport_train.cli import main

sys.exit(main())
