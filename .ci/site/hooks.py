"""What MkDocs does beside rendering docs/: pages that lie elsewhere in the repository, pages made of the code, links between them,
and a look at the finished site, which must lead nowhere that is not there and load nothing from elsewhere.
"""

import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from posixpath import normpath, relpath
from typing import Any
from urllib.parse import unquote, urlsplit

import notebooks
from commands import command_pages
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
GO_PAGES = ROOT / "build" / "go-pages"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# Pages outside of docs/, which have the same paths on the site, where docs/ itself is the root.
ELSEWHERE = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "bench/README.md",
    "bench/peers/README.md",
    "python/bitnet_rust/models/bitnet-shakespeare/README.md",
)

_FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_COMMANDS = "<!-- here the site has every command, made of the code -->"

_log = get_plugin_logger("site")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Makes the pages of the Go packages, and gives each a place below theirs, and the notebooks theirs."""
    subprocess.run(["go", "run", "./.ci/godoc", "-out", str(GO_PAGES)], cwd=ROOT, check=True)
    reference = next(part["Reference"] for part in config.nav or [] if "Reference" in part)
    at = next(i for i, entry in enumerate(reference) if entry == {"Go packages": "reference/go/index.md"})
    packages = sorted(
        path.relative_to(GO_PAGES).as_posix() for path in GO_PAGES.rglob("*.md") if path.name != "index.md"
    )
    below = [{page.removesuffix(".md"): f"reference/go/{page}"} for page in packages]
    reference[at] = {"Go packages": ["reference/go/index.md", *below]}
    start = next(part["Tutorial"] for part in config.nav or [] if "Tutorial" in part)
    start += [f"notebooks/{path.stem}.md" for path in NOTEBOOKS]
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    for place in ELSEWHERE:
        files.append(File.generated(config, place, abs_src_path=str(ROOT / place)))
    for path in GO_PAGES.rglob("*.md"):
        place = f"reference/go/{path.relative_to(GO_PAGES).as_posix()}"
        files.append(File.generated(config, place, abs_src_path=str(path)))
    for path in NOTEBOOKS:
        text, pictures = notebooks.page(path)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
        for name, content in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    if page.file.src_uri == "reference/cli.md":
        if _COMMANDS not in markdown:
            _log.warning(f"{page.file.src_uri} has no line {_COMMANDS}")
        markdown = markdown.replace(_COMMANDS, command_pages())
    if page.file.src_uri.startswith("reference/go/"):
        page.meta["search"] = {"boost": 0.1}  # after pages for users, of whom few read Go
    parts = _FENCE.split(markdown)  # code stays as it is
    return "".join(part if part.startswith("```") else _on_the_site(part, page, files) for part in parts)


def _on_the_site(text: str, page: Page, files: Files) -> str:
    """The text with links that cross the border of docs/, as they are right in the repository, made right for the site."""
    source = page.file.src_uri
    outside = source in ELSEWHERE or source.startswith("notebooks/")
    here = source if outside else f"docs/{source}"  # in the repository

    def link(match: re.Match[str]) -> str:
        image, words, target = match.groups()
        where = urlsplit(target)
        if where.scheme or not where.path:
            return match[0]
        path = normpath(f"{here.rpartition('/')[0] or '.'}/{unquote(where.path)}")
        if path.startswith("docs/") and not outside:
            return match[0]  # MkDocs knows it
        there = re.sub(r"^(notebooks/.*)\.ipynb$", r"\1.md", path.removeprefix("docs/"))
        if files.get_file_from_path(there) is None:
            if (ROOT / path).exists():
                return words  # a file of the code: the name says where it is
            return match[0]  # MkDocs will complain
        anchor = f"#{where.fragment}" if where.fragment else ""
        return f"{image}[{words}]({relpath(there, source.rpartition('/')[0] or '.')}{anchor})"

    return _LINK.sub(link, text)


# --- the finished site -----------------------------------------------------------------------------------------------


class _Places(HTMLParser):
    """What a page links to and loads, and its anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        fields = dict(attrs)
        if fields.get("id"):
            self.anchors.add(fields["id"] or "")
        if tag == "a" and fields.get("href"):
            self.links.append(fields["href"] or "")
        elif tag == "link" and fields.get("href") and fields.get("rel") not in ("canonical", "prev", "next"):
            self.loads.append(fields["href"] or "")
        elif tag in ("img", "script", "iframe", "source") and fields.get("src"):
            self.loads.append(fields["src"] or "")


def on_post_build(config: MkDocsConfig, **_: Any) -> None:
    """Follows every link of every page; a warning is an error, as the build is strict."""
    site = Path(config.site_dir)
    pages: dict[Path, _Places] = {}
    for path in site.rglob("*.html"):
        pages[path] = _Places()
        pages[path].feed(path.read_text("utf-8"))
    links = 0
    for path, places in pages.items():
        if path.name == "404.html":
            continue  # which servers show at any address
        name = path.relative_to(site)
        for target in places.loads:
            if urlsplit(target).scheme not in ("", "data") or target.startswith("//"):
                _log.warning(f"{name} loads {target} from elsewhere")
        for target in [*places.links, *places.loads]:
            where = urlsplit(target)
            if where.scheme or where.netloc:
                continue
            links += 1
            there = (path.parent / unquote(where.path)).resolve() if where.path else path
            if there.is_dir():
                there /= "index.html"
            if not there.exists():
                _log.warning(f"{name} leads to {target}, which is not there")
            elif where.fragment and there in pages and unquote(where.fragment) not in pages[there].anchors:
                _log.warning(f"{name} leads to {target}, and there is no such place on that page")
    _log.info(f"{links} links of {len(pages)} pages lead somewhere, and nothing is loaded from elsewhere")
