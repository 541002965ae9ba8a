"""Reads a text file of the material, with an error that says what is wrong with it and in which line."""

from pathlib import Path

from agentflow_support_desk.errors import MaterialError


def read_text(path: Path) -> str:
    """The file's text; a byte order mark, as spreadsheets write it, is left out.

    Raises `MaterialError` for a file that cannot be read or is not UTF-8.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise MaterialError("unreadable", path, None, error.strerror or "an unreadable file", "a text file") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{error.object[error.start]:02x}, which is not UTF-8"
        raise MaterialError("encoding", path, line, found, "UTF-8, with or without a byte order mark") from error
