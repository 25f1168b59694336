"""`python -m stimkit` is the command `stimkit`."""

from stimkit.cli import main

if __name__ == "__main__":
    main()
