"""`python -m echovec` is the command line, for launchers such as torchrun."""

from echovec.cli import main

if __name__ == "__main__":
    main()
