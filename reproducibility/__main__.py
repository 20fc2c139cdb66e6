"""Run the command line as `python -m reproducibility`."""

from reproducibility.cli import main

if __name__ == "__main__":
    main()
