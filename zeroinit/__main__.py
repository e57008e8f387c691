"`python -m zeroinit`: the `zeroinit` command where the console script is not installed."

import sys

from zeroinit.publish.cli import main

sys.exit(main())
