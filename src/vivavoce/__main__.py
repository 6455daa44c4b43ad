"""`python -m vivavoce`: the same as the `vivavoce` command."""

import sys

from vivavoce.cli import main

sys.exit(main())
