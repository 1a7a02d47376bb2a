"""`python -m mailmaps` is the command `mailmaps`."""

from mailmaps.cli import main

if __name__ == "__main__":
    main()
