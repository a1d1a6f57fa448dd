"""The chapters of results, executed from the tables in `results/`: what `make results` does. Nothing is trained."""

import sys
import time

from execute import PageError, execute_pages

from nacl._parallel import available_cores

CHAPTERS = ("16_results", "17_ablations", "18_ceiling")


def main() -> int:
    """Execute them; the exit status is 1 where one died."""
    start = time.monotonic()
    try:
        pages = execute_pages({name: {} for name in CHAPTERS}, "phantom", [], jobs=available_cores())
    except PageError as error:
        print(f"results: {error}", file=sys.stderr)
        return 1
    print(*(pages[name] for name in CHAPTERS), sep="\n")
    print(f"Done in {time.monotonic() - start:.0f} s. Open them in Jupyter; `make book` puts them into the book.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
