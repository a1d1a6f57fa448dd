"""Files appear under their name only when they are whole."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nacl._checks import expectation


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it takes that name at the end, or vanishes if anything fails.

    Raises:
        OSError: the disk is full or the folder can't be written; the message says which and what to do.
    """
    path = Path(path)
    # It has its name before it exists, so that a signal at any moment leaves nothing behind.
    temporary = path.parent / f".writing-{secrets.token_hex(8)}{path.suffix}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # some writers make a file of their own, for its owner alone
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(
            error.errno,
            f"{reason} while writing {path}. Free some space or choose another folder, then start again; "
            "finished runs and checkpoints are kept",
        ) from error
    finally:
        with suppress(OSError):  # it has its new name, or its folder could not be made
            temporary.unlink()


def real_path(argument: str, path: str | Path) -> Path:
    """A path from the root on, "~" and links replaced.

    Raises:
        ValueError: there is no such user, the links lead in a circle, or no path can be of these letters.
    """
    try:
        return Path(path).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(expectation(argument, "to be a path", repr(str(path)), str(error))) from error


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, all or nothing."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
