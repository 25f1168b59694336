"""`python -m stimkit` is the command `stimkit`."""

from stimkit.cli.main import main

if __name__ == "__main__":
    main()
