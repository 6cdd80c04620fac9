"""Names that come from plugins, models and error messages, made harmless for the place where they are shown."""

from __future__ import annotations

import re
import unicodedata

_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}  # controls, right-to-left marks, zero widths, line ends
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # and their full-width forms
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def visible(text: str) -> str:
    r"""Return one line in which every character that cannot be seen is written as \uXXXX."""
    flat = re.sub(r"[ \t\r\n]+", " ", text).strip()
    return "".join(_code(char) if unicodedata.category(char) in _INVISIBLE else char for char in flat)


def _code(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def markdown(text: str) -> str:
    """Return text that Markdown shows as it is: inside a table cell, without markup, HTML or links."""
    seen = visible(text)
    escaped = re.sub(r"([\\`*\[\]{}|~#$])", r"\\\1", seen)
    escaped = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", escaped)
    escaped = "".join(_HTML.get(char, char) for char in escaped)
    linkless = re.sub(r"://", "&#58;//", escaped)
    return re.sub(r"(?i)\bwww\.", lambda match: match[0][:-1] + "&#46;", linkless).replace("@", "&#64;")


def csv(text: str) -> str:
    """Return text that a spreadsheet does not take for a formula; plain numbers stay."""
    seen = visible(text)
    return f"'{seen}" if seen.startswith(_FORMULA) and not _NUMBER.fullmatch(seen) else seen
