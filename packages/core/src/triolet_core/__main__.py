"""`python -m triolet_core` is `triolet`."""

import sys

from triolet_core._cli import main

sys.exit(main())
