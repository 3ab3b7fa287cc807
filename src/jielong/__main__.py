"""`python -m jielong`, which torchrun needs."""

import sys

from jielong.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
