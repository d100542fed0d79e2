"""The benchmark: `python -m bench` runs this server and the yardsticks side by side and writes what it found.

The server under test has a core of its own where there are two; the fake model and the clients have the others.
Targets alternate within each workload, so that what else the machine does strikes all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvloop
from tqdm import tqdm

from bench import report, targets, trials
from bench.processes import Process, cores, free_port
from bench.targets import MODEL, RAW, RUNTIME, STARLETTE, Target
from bench.trials import Result, Running

HERE = Path(__file__).resolve().parent
CORES_FOR_TWO = 6
STREAMS = (1, 10, 50, 200)
MANY_STREAMS = [f"paced by {count}" for count in STREAMS[1:]]
PROCESSES = (1, 2, 4)
"""How many that share a PostgreSQL and a Redis."""
Trial = Callable[[Running], Awaitable[Result]]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often each workload is run (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=6, help="of each trial (default: %(default)s)")
    parser.add_argument("--only", default="", help="workloads, by the names in the results, comma-separated")
    parser.add_argument("--smoke", action="store_true", help="a few seconds that show that it works")
    parser.add_argument("--postgres-url", default="", help="an empty database, for two processes")
    parser.add_argument("--redis-url", default="", help="for two processes")
    parser.add_argument("--output", type=Path, default=HERE, help="folder for RESULTS.md and results.svg")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    if options.smoke:
        options.rounds, options.seconds = 1, 0.3
    return options


def main() -> None:
    options = arguments()
    [*workloads(options, {})]  # an unknown name is refused before anything is started
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        found = report.Results(uvloop.run(measure(options, Path(folder))))
    print(report.table(report.rows(found)))
    if not options.smoke:
        told = " ".join(one for one in sys.argv[1:] if "://" not in one)
        (options.output / "RESULTS.md").write_text(report.page(found, told))
        (options.output / "results.svg").write_text(report.picture(report.rows(found)))
    if wrong := [one for one in found.results if one.errors]:
        sys.exit(f"{len(wrong)} trials with errors, the first: {trials.as_line(wrong[0])}")


async def measure(options: argparse.Namespace, folder: Path) -> list[Result]:
    """Runs every workload round by round, the targets in turn; those that share a database come one after the other,
    since many idle processes on one core are something."""
    of_servers, of_others = cores()
    os.sched_setaffinity(0, of_others)
    results = []
    with ExitStack() as stack:
        model = stack.enter_context(_model(folder, of_others))
        with ExitStack() as alone:
            running, paths = start_alone(alone, options, folder, model, of_servers)
            results += await _trials(options, paths, running)
        if options.postgres_url and options.redis_url:
            for count in PROCESSES:
                with ExitStack() as shared:
                    running = start_shared(shared, options, folder, model, of_servers, count)
                    results += await _trials(options, paths, running)
    return results


async def _trials(
    options: argparse.Namespace, paths: dict[str, list[str]], running: dict[str, Running]
) -> list[Result]:
    plan = [
        (trial, running[name])
        for trial, names in workloads(options, paths)
        for _ in range(options.rounds)
        for name in names
        if name in running
    ]
    results = []
    with tqdm(plan, unit="trial", disable=not sys.stderr.isatty()) as bar:
        for trial, target in bar:
            bar.set_postfix_str(target.target.name)
            results.append(result := await trial(target))
            bar.write(trials.as_line(result), file=sys.stdout)
            await asyncio.sleep(0.2)  # what the last trial left behind is not this one's
    return results


def _paced_by(count: int, seconds: float) -> Trial:
    """A point of the curve over streams."""
    return lambda one: trials.paced(one, count, seconds, f"paced by {count}")


def workloads(options: argparse.Namespace, paths: dict[str, list[str]]) -> Iterator[tuple[Trial, list[str]]]:
    """Each workload with the targets that it is run on."""
    seconds, smoke = options.seconds, options.smoke
    two = [targets.shared_name(count) for count in (1, 2)] if (os.cpu_count() or 1) >= CORES_FOR_TWO else []
    all_of_them: dict[str, tuple[Trial, list[str]]] = {
        "one token": (lambda one: trials.one_token(one, seconds), [RUNTIME, RAW, STARLETTE]),
        "one token alone": (lambda one: trials.one_token(one, seconds, 1, "one token alone"), [RUNTIME, MODEL]),
        "flood": (lambda one: trials.flood(one, seconds), [RUNTIME, RAW, STARLETTE, *two]),
        "paced": (lambda one: trials.paced(one, 4 if smoke else 100, seconds), [RUNTIME, RAW, STARLETTE, MODEL]),
        "history": (lambda one: trials.history(one, 10 if smoke else 1000), [RUNTIME]),
        "idle WebSockets": (lambda one: trials.idle_websockets(one, 5 if smoke else 1000), [RUNTIME]),
        "stored": (lambda one: trials.stored(one, paths, 2 if smoke else 30), [RUNTIME]),
        **{f"paced by {count}": (_paced_by(count, seconds), [RUNTIME]) for count in STREAMS},
        "processes": (
            lambda one: trials.one_token(one, seconds, workload="processes"),
            [targets.shared_name(count) for count in PROCESSES],
        ),
        "most paced": (lambda one: trials.most_paced(one, seconds), [RUNTIME, STARLETTE]),
    }
    of_smoke = [name for name in all_of_them if name != "most paced" and name not in MANY_STREAMS]
    wanted = options.only.split(",") if options.only else of_smoke if smoke else [*all_of_them]
    if unknown := [name for name in wanted if name not in all_of_them]:
        sys.exit(f"No such workload: {', '.join(unknown)}. There are: {', '.join(all_of_them)}.")
    for name in wanted:
        yield all_of_them[name]


# --- what runs ---------------------------------------------------------------------------------------------------


@contextmanager
def _model(folder: Path, on: set[int]) -> Iterator[Running]:
    port = free_port()
    command = [sys.executable, "-m", "bench.upstream", str(port)]
    with Process(command, port=port, cores=on, log=folder / "model.log") as model:
        yield Running(Target(MODEL, targets.openai_request, lambda *_: []), model)


def start_alone(
    stack: ExitStack, options: argparse.Namespace, folder: Path, model: Running, on: set[int]
) -> tuple[dict[str, Running], dict[str, list[str]]]:
    """Every target that needs nothing but the fake model, all at once: a few idle ones cost nothing."""
    port = model.server.port
    here = targets.runtime(f"sqlite:///{folder / 'bench.sqlite3'}")
    paths = fill(here, port, *((50, 200) if options.smoke else (100_000, 10_000)))
    running = {MODEL: model}
    for target in [here, *targets.yardsticks()]:
        running[target.name] = stack.enter_context(_started(target, port, folder, on))
    if STARLETTE not in running:
        print(f"{STARLETTE} is left out: pip install -r requirements-bench.txt", file=sys.stderr)
    return running, paths


def start_shared(
    stack: ExitStack, options: argparse.Namespace, folder: Path, model: Running, on: set[int], count: int
) -> dict[str, Running]:
    """So many processes of ours that share a PostgreSQL and a Redis."""
    on = {0, 1} if (os.cpu_count() or 1) >= CORES_FOR_TWO else on
    shared = targets.runtime(options.postgres_url, options.redis_url, workers=count)
    running = stack.enter_context(_started(shared, model.server.port, folder, on))
    running.server.settle()
    return {shared.name: running}


@contextmanager
def _started(target: Target, model_port: int, folder: Path, on: set[int]) -> Iterator[Running]:
    port = free_port()
    log, env = folder / f"{target.name}.log", target.env(model_port)
    with Process(target.command(port, model_port), port=port, cores=on, log=log, env=env) as server:
        yield Running(target, server)


def fill(target: Target, model_port: int, sessions: int, messages: int) -> dict[str, list[str]]:
    command = [sys.executable, "-m", "bench.fill", str(sessions), str(messages)]
    env = os.environ | target.env(model_port)
    filled = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    return dict(json.loads(filled.stdout))


if __name__ == "__main__":
    main()
