"""The same table for the room of Tucker and Chebyshev-Tucker formats."""

import runpy
from pathlib import Path

import rst

runpy.run_path(str(Path(rst.__file__).with_name("functions.py")), {"ROOM": "tensor"})
