"""What MkDocs does beyond its own: pages that lie outside docs/, and the help of every command."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from segplus.__main__ import build_parser

ROOT = Path(__file__).parents[1]
OUTSIDE = ("CONTRIBUTING.md", "CHANGELOG.md")
HELP_MARK = "<!-- help of every command -->"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the repository that lie outside docs/, under their own names."""
    pages = [ROOT / name for name in OUTSIDE] + sorted((ROOT / "benchmarks").glob("*.md"))
    for path in pages:
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, content=path.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Point links between docs/ and the repository to where the pages lie on the site, and print the help."""
    source = page.file.src_uri
    if source in OUTSIDE:
        return re.sub(r"\]\(docs/", "](", markdown)
    if source.startswith("benchmarks/"):
        return re.sub(r"\]\(\.\./docs/", "](../", markdown)
    markdown = re.sub(r"\]\(\.\./(benchmarks/[\w.]+\.md|CONTRIBUTING\.md|CHANGELOG\.md)", r"](\1", markdown)
    return markdown.replace(HELP_MARK, format_help()) if HELP_MARK in markdown else markdown


def format_help() -> str:
    """Return a heading and the help of each command, as Markdown."""
    _, verbs = build_parser()
    return "\n".join(f"## segplus {name}\n\n```text\n{verb.format_help()}```\n" for name, verb in verbs.items())
