"""The command `stimkit`, also as `python -m stimkit`."""

import os
import sys


def main() -> None:
    """Run the command line; who stops it while it is loaded gets a line rather than a traceback."""
    try:
        from stimkit.cli.main import main as run
    except KeyboardInterrupt:
        os.write(2, b"stimkit: stopped on request\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
