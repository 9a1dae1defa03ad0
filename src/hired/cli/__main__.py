"""``python -m hired.cli``."""

import sys

from hired.cli import main

sys.exit(main())
