"`python -m zeroinit.command`: the command's name before the library had packages, kept for users."

import sys

from zeroinit.publish.cli import main

if __name__ == "__main__":
    sys.exit(main())
