"""``python -m gancore`` is ``gan``."""

from __future__ import annotations

from gancore.cli.main import main

if __name__ == "__main__":
    main()
