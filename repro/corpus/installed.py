"""Real text that is everywhere Python is: the standard library, the language reference, and installed
packages.

Three domains. ``code``: modules of the standard library and of tools. ``prose``: the language reference
(``pydoc_data.topics``), package descriptions, and docstrings of libraries for data, plots and models.
``mathematics``: docstrings of libraries for symbolic, numerical, statistical and graph mathematics. No
package gives to two domains, so that no docstring is read twice; nothing is imported, only parsed. The group
is the sub-package (``scipy.stats``) or the standard library's top-level module.
"""

from __future__ import annotations

import ast
import platform
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from email.message import Message
from functools import cache
from importlib import metadata, util
from pathlib import Path
from typing import cast

from repro.corpus.documents import Document, Drop, sampling_key
from repro.corpus.settings import Corpus
from repro.errors import one_of
from repro.plain import Json

# module: distribution. What is not installed is left out; the versions of what is make the identity.
CODE = {
    "accelerate": "accelerate", "aiohttp": "aiohttp", "click": "click", "datasketch": "datasketch",
    "dill": "dill",
    "filelock": "filelock", "fsspec": "fsspec", "httpx": "httpx", "huggingface_hub": "huggingface_hub",
    "jinja2": "Jinja2",
    "joblib": "joblib", "lm_eval": "lm_eval", "multidict": "multidict", "omegaconf": "omegaconf",
    "packaging": "packaging",
    "pydantic": "pydantic", "pyparsing": "pyparsing", "requests": "requests", "rich": "rich",
    "sacrebleu": "sacrebleu",
    "tqdm": "tqdm", "typer": "typer", "urllib3": "urllib3", "wandb": "wandb",
}  # fmt: skip
PROSE = {
    "datasets": "datasets", "deepspeed": "deepspeed", "matplotlib": "matplotlib", "nltk": "nltk",
    "pandas": "pandas",
    "polars": "polars", "pyarrow": "pyarrow", "torch": "torch", "transformers": "transformers",
}  # fmt: skip
MATHEMATICS = {
    "mpmath": "mpmath", "networkx": "networkx", "numpy": "numpy", "patsy": "patsy", "scipy": "scipy",
    "sklearn": "scikit-learn", "statsmodels": "statsmodels", "sympy": "sympy",
}  # fmt: skip
# Tests, copies of other packages, generated tables; transformers' models are hundreds of near copies of one
# another.
SKIP = {
    "__pycache__",
    "_vendor",
    "vendor",
    "vendored",
    "_vendored_packages",
    "site-packages",
    "test",
    "tests",
    "testing",
}
SKIP |= {"idlelib", "lib2to3", "turtledemo", "encodings", "ensurepip", "pydoc_data", "models", "lib-dynload"}
MAX_FILE_BYTES = 400_000  # larger modules are tables written by programs
MIN_PAGE_CHARACTERS = 400
PART_CHARACTERS = 5_000
# A blank line before it, so that no decorator is parted from what it decorates.
DEFINITION = re.compile(r"(?<=\n\n)(?:@|def |class |async def )")


def identity(settings: Corpus) -> Json:
    """Versions of Python and of every package that is read."""
    return {"python": platform.python_version(), "packages": _versions()}


def expected_tokens(settings: Corpus) -> tuple[float, int]:
    """(tokens in all, domains): about 60 MB of text with the packages of this project."""
    return 15e6, len(settings.domains) or 3


def _versions() -> dict[str, str]:
    found = {}
    for distribution in sorted({*CODE.values(), *PROSE.values(), *MATHEMATICS.values()}):
        try:
            found[distribution] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return found


def stream(settings: Corpus) -> Iterator[Document | Drop]:
    """Documents of the three domains; modules come in an order fixed by ``corpus.seed``.

    Under ``max_documents_per_domain`` or ``max_tokens_per_domain`` no more modules are read than give four
    times as much, which the sample by document is then drawn from: parsing everything takes half a minute.
    """
    producers = {"code": _code, "mathematics": _mathematics, "prose": _prose}
    for domain in settings.domains:
        one_of("corpus.domains", domain, tuple(producers))
    for domain, produce in producers.items():
        if not settings.domains or domain in settings.domains:
            documents, n_bytes = 0, 0
            for found in produce(settings.seed):
                yield found
                if isinstance(found, Document):
                    documents, n_bytes = documents + 1, n_bytes + len(found.text)
                if _enough(documents, settings.max_documents_per_domain) or _enough(
                    n_bytes / 4, settings.max_tokens_per_domain
                ):
                    break


def _enough(have: float, wanted: int | None) -> bool:
    return wanted is not None and have >= 4 * wanted


def _code(seed: int) -> Iterator[Document | Drop]:
    modules = [*_standard_library(), *_modules(CODE)]
    for path, name, group, about in _shuffled(modules, seed):
        text = _text(path, name, "code")
        if isinstance(text, Drop):
            yield text
        else:
            parts = _parts(text)
            for i, part in enumerate(parts):
                yield Document(name if len(parts) == 1 else f"{name}#{i}", "code", group, *about, part)


def _parts(text: str) -> list[str]:
    """A module, cut before top-level definitions into parts of ``PART_CHARACTERS`` and more: some are whole
    books.
    """
    parts, start = [], 0
    for cut in (match.start() for match in DEFINITION.finditer(text)):
        if cut - start >= PART_CHARACTERS and len(text) - cut >= PART_CHARACTERS / 2:
            parts.append(text[start:cut])
            start = cut
    return [*parts, text[start:]]


def _mathematics(seed: int) -> Iterator[Document | Drop]:
    return _docstrings("mathematics", MATHEMATICS, seed)


def _prose(seed: int) -> Iterator[Document | Drop]:
    yield from _reference()
    for distribution in _versions():
        yield from _description(distribution)
    yield from _docstrings("prose", PROSE, seed)


# path, name that is the same everywhere, group, (source, licence)
Module = tuple[Path, str, str, tuple[str, str]]


def _shuffled(modules: list[Module], seed: int) -> list[Module]:
    return sorted(modules, key=lambda module: sampling_key(seed, module[1]))


def _standard_library() -> Iterator[Module]:
    root = Path(sysconfig.get_paths()["stdlib"])
    about = (f"Python {platform.python_version()} standard library", "PSF-2.0")
    for path in _python_files(root):
        relative = path.relative_to(root)
        top = relative.parts[0].removesuffix(".py")
        if top in sys.stdlib_module_names:
            yield path, f"stdlib/{relative.as_posix()}", f"stdlib.{top}", about


def _modules(packages: dict[str, str]) -> Iterator[Module]:
    for module, distribution in packages.items():
        spec = util.find_spec(module)  # does not import a top-level package
        if spec and spec.origin and spec.submodule_search_locations:
            root, about = Path(spec.origin).parent, _about(distribution)
            for path in _python_files(root):
                name = path.relative_to(root.parent).as_posix()
                yield path, name, _group(name), about


def _python_files(root: Path) -> Iterator[Path]:
    """The modules worth reading, in order."""
    for path in sorted(root.rglob("*.py")):
        *folders, name = path.relative_to(root).parts
        private = any(folder.startswith("_") for folder in folders)
        if not private and not SKIP & set(folders) and not name.startswith(("test_", "conftest")):
            yield path


def _text(path: Path, where: str, domain: str) -> str | Drop:
    try:
        raw = path.read_bytes()
    except OSError as error:
        return Drop("unreadable_file", f"{where} ({error.strerror})", domain)
    if len(raw) > MAX_FILE_BYTES:
        return Drop("generated_file", where, domain)
    try:
        return raw.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError:
        return Drop("invalid_utf8", where, domain)


def _docstrings(domain: str, packages: dict[str, str], seed: int) -> Iterator[Document | Drop]:
    """A page per top-level function or class with documentation, as ``help()`` would show it."""
    for path, name, group, about in _shuffled(list(_modules(packages)), seed):
        text = _text(path, name, domain)
        if isinstance(text, Drop):
            yield text
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # invalid escapes in other people's strings
                tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError):
            yield Drop("unparsable_module", name, domain)
            continue
        seen: dict[str, int] = {}
        for title, page in _pages(tree, name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")):
            if len(page) >= MIN_PAGE_CHARACTERS:  # what is shorter documents nothing: not a document at all
                seen[title] = seen.get(title, 0) + 1  # overloads share a name
                ident = f"{name}:{title}" if seen[title] == 1 else f"{name}:{title}#{seen[title]}"
                yield Document(ident, domain, group, *about, page)


def _pages(tree: ast.Module, module: str) -> Iterator[tuple[str, str]]:
    """(name, page) of a module, its functions and its classes."""
    if text := ast.get_docstring(tree):
        yield module, f"{module}\n\n{text}\n"
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        parts = [(node.name, ast.get_docstring(node))]
        if isinstance(node, ast.ClassDef):
            methods = [n for n in node.body if isinstance(n, ast.FunctionDef)]
            parts += [(f"{node.name}.{m.name}{_arguments(m)}", ast.get_docstring(m)) for m in methods]
        else:
            parts[0] = (f"{node.name}{_arguments(node)}", parts[0][1])
        documented = [f"{title}\n\n{text}\n" for title, text in parts if text]
        if documented:
            yield node.name, f"{module}\n\n" + "\n".join(documented)


def _arguments(node: ast.FunctionDef) -> str:
    return f"({ast.unparse(node.args)})"


def _reference() -> Iterator[Document | Drop]:
    """The language reference, as text: one document a topic."""
    from pydoc_data.topics import topics

    source = f"Python {platform.python_version()} language reference"
    for name, text in sorted(topics.items()):
        yield Document(
            f"pydoc_data.topics:{name}", "prose", "pydoc_data.topics", source, "PSF-2.0", text.strip() + "\n"
        )


def _description(distribution: str) -> Iterator[Document | Drop]:
    """A package's long description: its README."""
    text = str(_message(distribution).get_payload() or "").strip()
    if len(text) >= MIN_PAGE_CHARACTERS:
        about = _about(distribution)
        yield Document(f"{distribution}:README", "prose", f"{distribution} README", *about, text + "\n")


def _message(distribution: str) -> Message:
    """A package's metadata; ``importlib`` promises less than what it gives."""
    return cast(Message, metadata.metadata(distribution))


def _group(name: str) -> str:
    """``scipy/stats/_morestats.py`` -> ``scipy.stats``; modules at the top of a package share its name."""
    return ".".join(name.split("/")[:-1][:2])


@cache
def _about(distribution: str) -> tuple[str, str]:
    """(source, licence) from the package's own metadata."""
    info = _message(distribution)
    classified = [
        c.rsplit(" :: ", 1)[-1] for c in info.get_all("Classifier", []) if c.startswith("License :: ")
    ]
    stated = (
        info.get("License-Expression")
        or ", ".join(classified)
        or (info.get("License") or "").strip().split("\n")[0]
    )
    return f"{distribution} {info['Version']}", stated[:100] or "not stated"
