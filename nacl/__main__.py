"""`nacl` and `python -m nacl`: the command line, or what to install for it."""

import sys


def main() -> int:
    """Run the command line; where an extra is not installed, say which and return 2."""
    try:
        from nacl.cli import main as run
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("nacl"):
            raise
        print(
            f"nacl: the command line needs {error.name}, which is not installed. "
            "Install the extras: pip install 'nacl-calibration[notebooks]', or make setup in a checkout.",
            file=sys.stderr,
        )
        return 2
    return run()


if __name__ == "__main__":
    sys.exit(main())
