"""`python -m limbeck` is the command `limbeck`."""

import sys

from limbeck.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
