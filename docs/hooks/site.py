"""Build hooks of the documentation site: pages from other folders, links to them, and the table of fields."""

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

from plq.config.reference import sections

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*)?\)")
FIELDS = "<!-- fields -->"


def elsewhere() -> dict[str, str]:
    """Pages of the site that are not in docs/: place in the repository -> place in the site."""
    results = {f"results/{file.name}": f"results/{file.name}" for file in (ROOT / "results").glob("*.md")}
    examples = {
        f"examples/{file.parent.name}/README.md": f"examples/{file.parent.name}.md"
        for file in (ROOT / "examples").glob("*/README.md")
    }
    return {**results, **examples, "CONTRIBUTING.md": "development.md", "CHANGELOG.md": "changelog.md"}


def on_files(files: Any, config: Any) -> Any:
    """Add the pages from other folders."""
    for source, place in elsewhere().items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page with the table of fields put in, and with its links as the site needs them."""
    place = page.file.src_uri
    source = next((source for source, target in elsewhere().items() if target == place), f"docs/{place}")
    markdown = markdown.replace(FIELDS, fields_table())
    return LINK.sub(lambda match: _linked(match, source, place), markdown)


def _linked(match: re.Match[str], source: str, place: str) -> str:
    """The link in a page of the site; the text alone where the target is a file of the repository and no page."""
    mark, text, target, anchor = match.groups()
    if not target or "://" in target:
        return match.group()
    found = os.path.normpath(os.path.join(os.path.dirname(source), target))
    pages = elsewhere()
    if found not in pages and not found.startswith("docs/"):
        return text
    site = pages.get(found, found.removeprefix("docs/"))
    return f"{mark}[{text}]({os.path.relpath(site, os.path.dirname(place) or '.')}{anchor or ''})"


def fields_table() -> str:
    """All fields of a configuration, read off the sources: a heading and a table for each section."""
    lines = []
    for name, section in sections().items():
        lines += ["", f"## {name}", "", section.about, "", "| field | type | default | meaning |", "|---|---|---|---|"]
        for field, facts in section.fields.items():
            kind, default = (text.replace("|", "\\|") for text in (facts.kind, facts.default))
            lines.append(f"| `{name}.{field}` | `{kind}` | `{default}` | {facts.meaning} |")
    return "\n".join(lines)
