"""What MkDocs cannot do by itself: pages outside docs/, links that GitHub follows, the reference.

Each page stands in one place in the repository and links by paths that GitHub follows; here these
become links between pages of the site. `mkdocs.yml` names a page outside docs/ by its path from the
top of the repository. Other files that a page links to are copied into the site. The API reference
is generated from docstrings, by `reference_pages.py`.
"""

import os
import re
from pathlib import Path

import reference_pages
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?\)")
LOADED = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\ssrc=[\"']?(?:https?:)?//[^>]*>"
    r"|<link\b(?![^>]*rel=[\"']?(?:canonical|alternate))[^>]*\shref=[\"']?(?:https?:)?//[^>]*>",
    re.IGNORECASE,
)


def on_config(config):
    """Adds the reference to the nav."""
    config.nav.insert(-1, {"API reference": reference_pages.nav()})
    return config


def on_files(files, config):
    """Adds the reference, and the pages and pictures outside docs/."""
    for page, text in reference_pages.pages().items():
        files.append(File.generated(config, page, content=text))
    for page in _pages(config.nav):
        if files.get_file_from_path(page) is None and (ROOT / page).is_file():
            files.append(File.generated(config, page, abs_src_path=str(ROOT / page)))
    for page in list(files.documentation_pages()):
        for place in sorted(_linked(page.src_uri, page.content_string)):
            uri = _uri(place)
            if files.get_file_from_path(uri) is None and (ROOT / place).is_file():
                if place.endswith(".md"):
                    raise PluginError(f"{page.src_uri} links to {place}, which is not in the nav.")
                files.append(File.generated(config, uri, abs_src_path=str(ROOT / place)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Turns links between files of the repository into links between pages."""
    folder = os.path.dirname(page.file.src_uri)

    def replace(match):
        target = _uri(_place(page.file.src_uri, match[1]))
        return f"]({os.path.relpath(target, folder or '.')}{match[2] or ''})"

    lines = re.sub(r"<!--.*?-->", "", markdown, flags=re.DOTALL).splitlines()
    return "\n".join(s if s.startswith("    ") else LINK.sub(replace, s) for s in lines)


def on_post_page(output, page, config):
    """Rejects a page that would load anything from another host.

    Raises:
      PluginError: naming what it would load.
    """
    if found := LOADED.search(output):
        raise PluginError(f"{page.file.src_uri} loads from another host: {found[0]}")
    return output


def _pages(nav):
    """The paths in the nav."""
    for entry in nav:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        yield from _pages(value) if isinstance(value, list) else [value]


def _linked(uri, text):
    """What a page links to, as paths from the top of the repository."""
    return {_place(uri, match[1]) for match in LINK.finditer(text)}


def _place(uri, target):
    """Where a link of a page leads, as a path from the top of the repository."""
    own = f"docs/{uri}" if (ROOT / "docs" / uri).is_file() else uri
    return os.path.normpath(os.path.join(os.path.dirname(own), target))


def _uri(place):
    """The name in the site of a file of the repository."""
    return place.removeprefix("docs/")
