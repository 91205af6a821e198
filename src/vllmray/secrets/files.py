"""Files that settings name: an unreadable one is an invalid setting; errors never quote the contents."""

from __future__ import annotations

from pathlib import Path

from vllmray.errors import ConfigError
from vllmray.secure_files import read_secret, read_trusted


def text_of(option: str, name: str, *, hidden: bool) -> str:
    """The text of a file.

    Args:
        option: the option that names it, for the error.
        hidden: others must not be able to read it.

    Raises:
        ConfigError: it can't be read, is not text, or others can write it.
    """
    try:
        path = Path(name).expanduser()
        return read_secret(path) if hidden else read_trusted(path)
    except ConfigError as error:
        error.message = f"{option}: {error.message}"
        raise
    except OSError as error:
        raise ConfigError(f"{option}: can't read {name}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"{option}: {name} is not a text file") from None
    except (RuntimeError, ValueError) as error:  # ~nobody; a name with a NUL in it
        raise ConfigError(f"{option}: invalid file name {name!r}: {error}") from error
