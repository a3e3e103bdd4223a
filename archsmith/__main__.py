"""`python -m archsmith` is the command line."""

from archsmith.cli import main

if __name__ == "__main__":
    main()
