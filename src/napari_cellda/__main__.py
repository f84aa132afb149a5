"""``python -m napari_cellda``, the command line."""

import sys

from napari_cellda.cli import main

if __name__ == "__main__":
    sys.exit(main())
