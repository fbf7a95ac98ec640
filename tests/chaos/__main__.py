"""``python -m tests.chaos --seconds 600``."""

import sys

from .run import main

sys.exit(main())
