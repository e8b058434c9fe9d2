"""Make this package importable by its own name from any test folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
