"""Build the site from the pages of the repository: which page lies where, where its links lead, and what is generated.

The pages are written for a code host: README.md at the root, links to sources and to files outside docs/. MkDocs calls the functions
here by their names (https://www.mkdocs.org/dev-guide/plugins/#events). Pages from outside docs/ get a place in the site, a link to a
source file leads to the reference or to a page that shows the file, and the reference itself is made by `reference`.
"""

from __future__ import annotations

import importlib.metadata
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import reference
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).resolve().parents[2]

ELSEWHERE = {
    "README.md": "index.md",
    "docs/README.md": "documentation.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "data/README.md": "data.md",
}
"""Pages whose place in the site is not their place below docs/."""

FOLDERS_OF_PAGES = ("findings",)
"""Folders beside docs/ whose pages keep their path in the site."""

TEMPLATE = "-template.md"
"""How a page ends that is copied, not read."""

MERMAID = "assets/mermaid.min.js"
LANGUAGES = {
    ".py": "python",
    ".sh": "bash",
    ".toml": "toml",
    ".yml": "yaml",
    ".yaml": "yaml",
    ".sql": "sql",
    ".js": "javascript",
}
FENCE = re.compile(r"^\s*```")
LINK = re.compile(r"(?P<before>\]\()(?P<target>[^)\s]+)(?P<after>\))")
LOADED = re.compile(
    r"""<(?:script|img|iframe|source|link(?![^>]*rel="?canonical))\b[^>]*?\b(?:src|href)=["']?([^"'\s>]+)"""
)
MAX_SOURCE_CHARACTERS = 200_000


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Expand patterns of the navigation (`adr/0*.md`) to the pages that are there."""
    config.nav = _expanded(config.nav or [])
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside docs/, the generated reference, the sources that pages link to, and Mermaid."""
    for source, place in _outside().items():
        if (inside := files.get_file_from_path(source.removeprefix("docs/"))) and source.startswith("docs/"):
            files.remove(inside)
        files.append(File.generated(config, place, abs_src_path=str(REPOSITORY / source)))
    for place, content in reference.pages().items():
        files.append(File.generated(config, place, content=content))
    for path in sorted(_linked_sources(files)):
        files.append(File.generated(config, _source_page(path), content=_shown(path)))
    mermaid = importlib.metadata.distribution("mermaidx").locate_file("mermaidx/assets/mermaid.js")
    files.append(File.generated(config, MERMAID, abs_src_path=str(mermaid)))
    return files


def on_page_markdown(markdown: str, *, page: Page, files: Files, **_: Any) -> str:
    """Let each relative link lead to the place that its target has in the site. The first page has no page beside it."""
    if page.file.src_uri == ELSEWHERE["README.md"]:
        page.meta["hide"] = ["navigation"]
    here = _repository_path(page.file)
    if here is None:
        return markdown

    def led(match: re.Match[str]) -> str:
        path, _, heading = match["target"].partition("#")
        place = _place_of(_resolve(here, path), files) if path else None
        if place is None:
            return match[0]
        target, _, own = place.partition("#")
        relative = posixpath.relpath(target, posixpath.dirname(page.file.src_uri) or ".")
        anchor = heading or own
        return f"{match['before']}{relative}{'#' + anchor if anchor else ''}{match['after']}"

    return "\n".join(line if is_code else LINK.sub(led, line) for line, is_code in _lines(markdown))


def on_post_page(output: str, *, page: Page, **_: Any) -> str:
    """Serve Mermaid from the site, on pages with a diagram; the theme would load it from another host. Name the theme's dialog."""
    output = output.replace('role="dialog"', 'role="dialog" aria-label="Search"')
    if 'class="mermaid"' not in output:
        return output
    depth = posixpath.relpath(".", posixpath.dirname(page.file.dest_uri) or ".")
    return output.replace("</head>", f'<script src="{depth}/{MERMAID}" defer></script></head>', 1)


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site that needs another host.

    Raises:
        PluginError: if a page loads something from one.
    """
    site = Path(config.site_dir)
    loads = [
        f"{path.relative_to(site)}: {url}"
        for path in sorted(site.rglob("*.html"))
        for url in LOADED.findall(path.read_text())
        if "//" in url
    ]
    if loads:
        raise PluginError("pages load from another host:\n" + "\n".join(loads))


def _expanded(entries: list[Any]) -> list[Any]:
    found: list[Any] = []
    for entry in entries:
        if isinstance(entry, dict):
            found.append({title: _expanded(of) if isinstance(of, list) else of for title, of in entry.items()})
        elif "*" in entry:
            found.extend(_matching(entry))
        else:
            found.append(entry)
    return found


def _matching(pattern: str) -> list[str]:
    known = [*reference.pages(), *_outside().values()]
    known += [path.relative_to(REPOSITORY / "docs").as_posix() for path in (REPOSITORY / "docs").rglob("*.md")]
    regex = re.compile(re.escape(pattern).replace(r"\*", "[^/]*"))
    found = {place for place in known if regex.fullmatch(place) and not place.endswith(TEMPLATE)}
    return sorted(found, key=lambda place: place.removesuffix(".md"))


def _outside() -> dict[str, str]:
    """Return the pages that lie elsewhere in the repository than in the site, with their places in the site."""
    found = dict(ELSEWHERE)
    for folder in FOLDERS_OF_PAGES:
        for path in sorted((REPOSITORY / folder).rglob("*.md")):
            found[path.relative_to(REPOSITORY).as_posix()] = path.relative_to(REPOSITORY).as_posix()
    return found


def _repository_path(file: File) -> str | None:
    """Return where a page of the site lies in the repository; None for one that is generated."""
    for source, place in _outside().items():
        if place == file.src_uri:
            return source
    path = f"docs/{file.src_uri}"
    return path if (REPOSITORY / path).exists() else None


def _resolve(page: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def _place_of(path: str, files: Files) -> str | None:
    """Return where a file of the repository is shown in the site; None if it is not there."""
    if path in _outside():
        return _outside()[path]
    if path.startswith("docs/") and files.get_file_from_path(path.removeprefix("docs/")):
        return path.removeprefix("docs/")
    if documented := reference.place_of(path):
        return documented
    return _source_page(path) if files.get_file_from_path(_source_page(path)) else None


def _linked_sources(files: Files) -> Iterator[str]:
    """Yield the files of the repository that pages link to and that are neither pages nor in the reference."""
    for file in files.documentation_pages():
        here = _repository_path(file)
        if here is None:
            continue
        for line, is_code in _lines((REPOSITORY / here).read_text()):
            for match in () if is_code else LINK.finditer(line):
                path = _resolve(here, match["target"].partition("#")[0])
                is_outside = not path.startswith(("docs/", "..")) and (REPOSITORY / path).is_file()
                if is_outside and path not in _outside() and not reference.place_of(path):
                    yield path


def _source_page(path: str) -> str:
    return f"source/{path.lstrip('.')}.md"  # MkDocs leaves out what begins with a dot


def _shown(path: str) -> str:
    """Return a page that shows a source file."""
    text = (REPOSITORY / path).read_text()
    if len(text) > MAX_SOURCE_CHARACTERS:
        raise ValueError(f"{path} is linked by a page and has {len(text)} characters, too many to show")
    language = LANGUAGES.get(Path(path).suffix, "text")
    ticks = "`" * (max((len(run) for run in re.findall(r"`{3,}", text)), default=2) + 1)
    return f"---\nsearch:\n  exclude: true\n---\n# {path}\n\n{ticks}{language}\n{text.rstrip()}\n{ticks}\n"


def _lines(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the lines of a page, each with whether it is code."""
    is_code = False
    for line in text.splitlines():
        is_fence = bool(FENCE.match(line))
        is_code ^= is_fence
        yield line, is_code or is_fence or line.startswith("    ")
