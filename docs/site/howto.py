"""Pages that show files: one per framework, with its chapter, its example and its reference; one of docs/deploy."""

from __future__ import annotations

import ast
import re
from pathlib import Path

CHAPTERS = {  # the file of an example, and of the integration: its chapter in integrations.md
    "asgi": "ASGI",
    "dask": "Dask",
    "optuna": "Optuna",
    "joblib": "joblib",
    "celery": "Celery",
    "torch": "PyTorch",
    "lightning": "Lightning",
    "transformers": "transformers and accelerate",
    "ray": "Ray",
    "opentelemetry": "OpenTelemetry",
}
LANGUAGES = {".json": "json", ".service": "ini", ".sh": "bash", ".yaml": "yaml", ".yml": "yaml"}
EXAMPLES = {"opentelemetry": "otel"}


def titles(docs: Path) -> dict[str, str]:  # noqa: ARG001 - as pages()
    """Return the title of each framework's page by its path."""
    return {f"howto/{name}.md": title for name, title in CHAPTERS.items()}


def pages(docs: Path) -> dict[str, str]:
    """Return the text of each page by its path."""
    written = (docs / "integrations.md").read_text(encoding="utf-8")
    made = {f"howto/{name}.md": _framework(docs, name, title, written) for name, title in CHAPTERS.items()}
    return {**made, "deploy/index.md": _deploy(docs)}


def _framework(docs: Path, name: str, title: str, written: str) -> str:
    chapter = re.search(rf"^## {re.escape(title)}\n\n(.*?)(?=^## |\Z)", written, re.MULTILINE | re.DOTALL)
    assert chapter is not None, f"docs/integrations.md has no chapter ## {title}"
    written_here = re.sub(r"\]\((?!https?:|#)", "](../", chapter[1].strip())  # its links are those of a folder above
    file = next((docs / "examples").glob(f"{EXAMPLES.get(name, name)}_*.py"))
    code = file.read_text(encoding="utf-8")
    told = ast.get_docstring(ast.parse(code)) or ""
    parts = [f"# {title}", written_here, "## An example", told, f"```python\n{code}```"]
    if any((docs.parent / "shm_monitor" / "integrations").glob(f"{name}*")):
        parts += ["## Reference", f"::: shm_monitor.integrations.{name}"]
    return "\n\n".join(parts) + "\n"


def _deploy(docs: Path) -> str:
    files = sorted(path for path in (docs / "deploy").rglob("*") if path.is_file())
    parts = ["# Deploy files", "They lie in docs/deploy; the tools that read them accept them, which is tested."]
    for path in files:
        name = path.relative_to(docs / "deploy")
        parts.append(f"## {name}")
        if path.suffix == ".json":
            parts.append(f"[{path.name}]({name}) is imported by Grafana.")
            continue
        language = LANGUAGES.get(path.suffix, "text")
        parts.append(f"````{language}\n{path.read_text(encoding='utf-8')}````")
    return "\n\n".join(parts) + "\n"
