"""For the site: links that leave the documentation become plain text, and what only the tests read is left out."""

from __future__ import annotations

import re
from typing import Any

_BEFORE = re.compile(r"<!-- before\n.*?-->\n", re.DOTALL)
_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)]+)\)")


def on_page_markdown(markdown: str, **_more: Any) -> str:
    """Write the path beside the text of a link that leads out of the docs folder."""
    return _OUTSIDE.sub(r"\1 (`\2`)", _BEFORE.sub("", markdown))
