"""What the demo model writes into a new file, by its ending. Imports only the demo's reading of requests."""

from __future__ import annotations

import json
import shlex
from pathlib import PurePosixPath

from agents_app import demo_requests


def content(request: demo_requests.Request, path: str) -> str:
    """A short plausible file, always ended by a newline."""
    text = demo_requests.printed(request.text) or ("Привет!" if request.language == "ru" else "Hello!")
    title = PurePosixPath(path).stem.replace("_", " ").replace("-", " ").strip().capitalize() or "Demo"
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in (".md", ".rst"):
        return _document(request, title)
    return _PROGRAMS.get(suffix, "{plain}\n").format(
        title=title, plain=text, literal=json.dumps(text, ensure_ascii=False), shell=shlex.quote(text)
    )


_PROGRAMS = {
    ".py": 'def main() -> None:\n    print({literal})\n\n\nif __name__ == "__main__":\n    main()\n',
    ".js": "console.log({literal});\n",
    ".ts": "const text: string = {literal};\nconsole.log(text);\n",
    ".dart": "void main() {{\n  print(r{literal});\n}}\n",
    ".sh": "#!/bin/sh\nset -eu\n\necho {shell}\n",
    ".go": 'package main\n\nimport "fmt"\n\nfunc main() {{\n\tfmt.Println({literal})\n}}\n',
    ".rs": 'fn main() {{\n    println!("{{}}", {literal});\n}}\n',
    ".html": "<!doctype html>\n<title>{title}</title>\n<h1>{title}</h1>\n",
    ".css": "body {{\n  margin: 2rem;\n  font-family: sans-serif;\n}}\n",
    ".json": '{{\n  "name": {literal},\n  "version": "0.1.0"\n}}\n',
    ".yml": "name: {literal}\nversion: 1\n",
    ".yaml": "name: {literal}\nversion: 1\n",
    ".toml": "name = {literal}\nversion = 1\n",
}


_DOCUMENTS = {
    "ru": "# {title}\n\n## Зачем\n\nЧерновик по запросу: {topic}\n\n## Дальше\n\n- [ ] уточнить\n- [ ] дополнить\n",
    "en": "# {title}\n\n## Why\n\nA draft on request: {topic}\n\n## Next\n\n- [ ] confirm the goal\n- [ ] fill in\n",
}


def _document(request: demo_requests.Request, title: str) -> str:
    return _DOCUMENTS[request.language].format(title=title, topic=" ".join(request.text.split())[:200])
