"""``python -m linalgk``."""

from linalgk.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
