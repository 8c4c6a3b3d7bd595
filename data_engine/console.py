"""What the command line says to people: one sentence per error, progress and metrics of a run, what to do next."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer


@contextmanager
def sentences() -> Iterator[None]:
    """Turns errors of the engine into one sentence and an exit code; 2 for a bad configuration."""
    from data_engine.core.errors import ConfigError, ContractError, EngineError

    try:
        yield
    except ConfigError as error:
        _fail(str(error), 2)
    except ContractError as error:
        _fail(f"contract broken: {error}", 1)
    except EngineError as error:
        _fail(str(error), 1)
    except PermissionError as error:
        _fail(f"no permission for '{error.filename}'. Choose another --output.", 1)
    except KeyboardInterrupt:
        _fail("stopped. Committed shards are kept; run the same command again to go on.", 130)


def _fail(sentence: str, code: int) -> None:
    from rich.console import Console

    Console(stderr=True, soft_wrap=True).print(f"[red]error:[/] {_escape(sentence)}", highlight=False)
    raise typer.Exit(code)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def run_on_console(config: Any, base: Path, console: Any, overwrite: bool, only: Any, listed: Any = None) -> Any:
    """Runs with progress on the console and metrics; both end with the run, however it ends."""
    from data_engine.progress import ProgressDisplay
    from data_engine.telemetry.listener import Listeners, open_telemetry
    from pipelines.run import open_output
    from pipelines.run import run as run_pipelines

    signal.signal(signal.SIGTERM, _interrupt)
    display = ProgressDisplay(console)
    telemetry = open_telemetry(config.name, open_output(config), os.environ, display.warn)
    try:
        outcome = run_pipelines(config, base, Listeners(display, telemetry), overwrite, only, listed)
        telemetry.finish(outcome.run)
    finally:
        display.stop()
        telemetry.close()
    return outcome


def replay_on_console(folder: str, asked: tuple[Any, ...], changes: list[str], dry_run: bool, as_json: bool) -> bool:
    """Says what is going to run again, runs it, and returns whether shards are dead after it.

    Args:
        folder: Output folder of a run.
        asked: Codes, stages, shards as text, pipelines.
        changes: `runner.key=value` overrides.
        dry_run: Only say it.
        as_json: Machine output on stdout: of a dry run what would be done, else `run.json`.
    """
    from rich.console import Console

    from data_engine.runners.replay import Selection, numbers, revoke_targets
    from data_engine.standing import standing
    from pipelines.replay import listed_before, plan_replay

    console = Console(stderr=True)
    codes, stages, shards, pipelines = asked
    selection = Selection(frozenset(codes), frozenset(stages), numbers(shards), frozenset(pipelines))
    planned = plan_replay(folder, selection, changes)
    _say_replay(console, planned.described())
    if dry_run:
        if as_json:
            print(json.dumps(planned.described(), ensure_ascii=False), flush=True)
        return False
    if not planned.targets and standing(planned.storage)[1]:
        return False
    revoke_targets(planned.storage, planned.targets)
    listed = listed_before(planned.storage)
    outcome = run_on_console(planned.config, planned.base, console, False, planned.sections, listed)
    if as_json:
        print(json.dumps(outcome.run, ensure_ascii=False), flush=True)
    last_words(console, outcome)
    return bool(outcome.dead)


def _say_replay(console: Any, described: dict[str, Any]) -> None:
    for line in described["rejects"]:
        console.print(f"  {line['rejects']:7} {line['code']} of {line['pipeline']}.{line['stage']} in {line['shards']} "
                      "shards", highlight=False)  # fmt: skip
    for pipeline, shards in described["dead"].items():
        shown = ", ".join(map(str, shards[:10])) + (", ..." if len(shards) > 10 else "")
        console.print(f"  {len(shards):7} dead shards of {pipeline} ({shown})", highlight=False)
    if described["shards"]:
        later = f"; {', '.join(described['checked_after'])} follow where their input changes"
        again = f"replay: {len(described['shards'])} committed shards run again"
        console.print(again + (later if described["checked_after"] else ""), highlight=False, soft_wrap=True)
    elif not described["dead"]:
        console.print("replay: no such rejects and no dead shard; see data-engine status", highlight=False)


def last_words(console: Any, outcome: Any) -> None:
    """Says what there is now and what to do next."""
    for table, parts in outcome.run["tables"].items():
        console.print(f"  {table:12} {sum(p['rows'] for p in parts):7} rows in {len(parts)} parts", highlight=False)
    _say_decisions(console, outcome)
    console.print(f"output: {outcome.output}", highlight=False, soft_wrap=True)
    if outcome.dead:
        shards = ", ".join(str(report["shard"]) for report in outcome.dead[:5])
        console.print(f"[red]{len(outcome.dead)} shards are dead[/] ({shards}): see above for the reasons. "
                      f"Mend the cause, then: data-engine replay {outcome.output} (or the same command again); "
                      "the other shards are kept.", soft_wrap=True)  # fmt: skip
        return
    console.print(f"next: open {outcome.output}/report/index.html, or data-engine inspect {outcome.output} segments",
                  highlight=False, soft_wrap=True)  # fmt: skip


def _say_decisions(console: Any, outcome: Any) -> None:
    """Says who decides about the segments where `filter` was used in the folder."""
    from data_engine.io.decisions import result_names
    from data_engine.io.storage import Storage

    names = result_names(Storage(outcome.output))
    present = next((s["decisions"] for s in outcome.run["pipelines"].values() if s.get("decisions")), None)
    if present:
        console.print(f"  segments are decided by filter result '{present['name']}', not by the run's policy: "
                      f"{present['kept']} of {present['rows']} kept", highlight=False, soft_wrap=True)  # fmt: skip
    elif names:
        console.print(f"  segments are decided by the run's policy; set aside: {', '.join(names)} "
                      f"(data-engine filter {outcome.output} --use NAME)", highlight=False, soft_wrap=True)  # fmt: skip


def filter_on_console(
    folder: str, policy: Path | None, name: str | None, used: str | None, dry_run: bool, runner: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Decides again by a policy, gives an earlier result force, or shows the results; see `pipelines.filter`.

    Raises:
        ConfigError: More than one of these is asked for.
    """
    from data_engine.core.errors import ConfigError
    from data_engine.tables import print_decisions, print_results
    from pipelines.filter import filter_run, results, use
    from pipelines.run import RunnerConfig

    if (used and policy) or ((dry_run or name) and not policy):
        raise ConfigError("filter takes --policy FILE (with --name, --dry-run), or --use NAME, or neither: to list")
    chosen = RunnerConfig(kind=runner or "local")
    if policy is None:
        listed = use(folder, used, chosen) if used else results(folder)
        print(json.dumps(listed, ensure_ascii=False)) if as_json else print_results(listed)
        return
    found = filter_run(folder, located(policy), name, dry_run, chosen)
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
        return
    print_decisions(found)
    if dry_run:
        print("dry run: nothing was written")
        return
    print(f"in force: {found['name']}. Back: data-engine filter {folder} --use {found['compared_with']}")
    print(f"voices stay those of the run's policy; next: data-engine report {folder}")


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def located(config: Path) -> Path:
    """Returns the config's path; the name of a shipped one will do where no such file is."""
    from pipelines.locate import shipped_configs

    shipped = shipped_configs() / config
    return shipped if shipped.is_file() and not config.is_file() else config


def beam_changes(arguments: list[str], runner: str | None) -> list[str]:
    """Returns extra arguments, which are Beam's, as changes of the config.

    Raises:
        typer.BadParameter: There are some, and the runner is not Beam.
    """
    if not arguments:
        return []
    if runner != "beam":
        raise typer.BadParameter(
            f"no such option: {' '.join(arguments)} (only --runner beam passes on foreign options)"
        )
    from data_engine.runners.beam.options import beam_arguments

    return [f"runner.options.{name}={json.dumps(value)}" for name, value in beam_arguments(arguments).items()]
