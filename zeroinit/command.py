"The `zeroinit` command under the name it had before the library had packages: `python -m zeroinit.command run ...`."

import sys

from zeroinit.publish.cli import main

if __name__ == "__main__":
    sys.exit(main())
