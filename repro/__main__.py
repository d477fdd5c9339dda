"""``python -m repro COMMAND ...`` is ``repro COMMAND ...``."""

import sys

from repro.cli import main

sys.exit(main())
