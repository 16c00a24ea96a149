"""`python -m speechpool`: the same as the command `speechpool`."""

from speechpool.cli import main

if __name__ == "__main__":
    main()
