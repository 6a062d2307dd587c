"""What the documentation site must contain; `make docs` builds it and checks its links."""

import re

import yaml

from docs import reference_pages
from tests.docs.blocks import REPOSITORY

LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s#]*)(?:#([^)\s]*))?\)")


def nav() -> list[str]:
    """The pages of the site: paths below docs/, or else from the top of the repository."""

    def pages(entries):
        for entry in entries:
            value = next(iter(entry.values())) if isinstance(entry, dict) else entry
            yield from pages(value) if isinstance(value, list) else [value]

    return list(pages(yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text())["nav"]))


def places() -> dict:
    """Pages of the nav -> their files."""
    found = {}
    for name in nav():
        inside = REPOSITORY / "docs" / name
        found[name] = inside if inside.is_file() else REPOSITORY / name
    return found


def test_every_page_is_in_the_nav_once():
    names = nav()
    assert len(set(names)) == len(names)
    assert all(path.is_file() for path in places().values())
    docs = REPOSITORY / "docs"
    written = {str(path.relative_to(docs)) for path in docs.rglob("*.md")}
    assert written <= set(names)
    assert {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "launch/README.md"} <= set(names)


def test_every_public_module_is_in_the_reference_once():
    files = (REPOSITORY / "lumiere_jax").rglob("*.py")
    names = (".".join(path.relative_to(REPOSITORY).with_suffix("").parts) for path in files)
    modules = {name.removesuffix(".__init__") for name in names}
    written = reference_pages.pages()
    listed = re.findall(r"^::: (\S+)$", "\n".join(written.values()), re.MULTILINE)
    assert sorted(listed) == sorted(m for m in modules if "._" not in m)
    assert [name for name in listed if not reference_pages.docstring(name)] == []
    assert [page for entry in reference_pages.nav() for page in entry.values()] == list(written)


def test_links_lead_somewhere_on_github_too():
    for path in places().values():
        for target, anchor in LINK.findall(_prose(path.read_text())):
            place = (path.parent / target).resolve() if target else path
            assert place.is_file(), f"{path}: {target} is not a file"
            if anchor:
                assert anchor in _anchors(place.read_text()), f"{path}: {target} has no #{anchor}"


def _prose(text: str) -> str:
    """A page without its code blocks."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"^    .*$", "", text, flags=re.MULTILINE)


def _anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", _prose(text), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in kept}


def test_pages_name_only_modules_and_files_that_are_there():
    for name, path in places().items():
        text = path.read_text() if name != "CHANGELOG.md" else ""  # which names old ones
        for module in re.findall(r"\blumiere_jax(?:\.[a-z_0-9]+)+", text):
            package, _, last = module.replace(".", "/").rpartition("/")
            found = [REPOSITORY / package / last, REPOSITORY / package / f"{last}.py"]
            # A function or class of a module; so is anything of the package itself.
            found += [(REPOSITORY / package).with_suffix(".py")] * ("/" in package)
            assert any(place.exists() for place in found), f"{name}: there is no {module}"
        for file in re.findall(r"\b(?:lumiere_jax|benchmarks|tests|docs)/[\w/]+\.\w+", text):
            assert (REPOSITORY / file).exists(), f"{name}: there is no {file}"
