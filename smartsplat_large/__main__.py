"""``python -m smartsplat_large`` is ``smartsplat-large``."""

from smartsplat_large.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
