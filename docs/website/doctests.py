"""Show doctests as code: a Griffe extension, since Markdown takes `>>>` for quotations and lists for links."""

from __future__ import annotations

from typing import Any

import griffe

PROMPT = ">>> "


class Doctests(griffe.Extension):
    """Put each doctest of a docstring between fences."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of an object that has been loaded, if it has doctests."""
        if obj.docstring is not None and PROMPT in obj.docstring.value:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    """Return a docstring with each of its doctests, up to the next empty line, between fences."""
    lines: list[str] = []
    is_inside = False
    for line in [*text.splitlines(), ""]:
        indent = line[: len(line) - len(line.lstrip())]
        if line.lstrip().startswith(PROMPT) and not is_inside:
            is_inside = True
            lines += ["", f"{indent}```pycon"]
            fence = f"{indent}```"
        elif not line.strip() and is_inside:
            is_inside = False
            lines.append(fence)
        lines.append(line)
    return "\n".join(lines).rstrip()
