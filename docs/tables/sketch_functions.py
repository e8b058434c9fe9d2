"""The same table for the room of sketches."""

import runpy

runpy.run_path("functions.py", {"ROOM": "sketch"})
