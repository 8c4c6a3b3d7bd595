"""The command line: `data-engine`. Heavy imports happen inside the commands, so `--help` is quick."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="data-engine",
    help="A generative speech data engine: raw speech in, Arrow shards for spoken-dialogue models out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigPath = Annotated[Path, typer.Argument(help="YAML file that says what to run.")]
Folder = Annotated[str, typer.Argument(help="Output folder of a run (path or fsspec URI).")]
Sets = Annotated[list[str], typer.Option("--set", help="Override a key of the config: a.b=value. May repeat.")]
Output = Annotated[str | None, typer.Option("--output", help="Output folder; overrides the config.")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine output on stdout.")]


@contextmanager
def _sentences() -> Iterator[None]:
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


def _config(path: Path, sets: list[str], output: str | None, runner: str | None, workers: int | None) -> Any:
    from pipelines.run import read_run_config

    changes = [*sets]
    changes += [f"output={json.dumps(output)}"] if output else []
    changes += [f"runner.kind={runner}"] if runner else []
    changes += [f"runner.workers={workers}"] if workers else []
    return read_run_config(path, changes)


def _located(config: Path) -> Path:
    """Returns the config's path; the name of a shipped one will do where no such file is."""
    from pipelines.locate import shipped_configs

    shipped = shipped_configs() / config
    return shipped if shipped.is_file() and not config.is_file() else config


@app.command()
def run(
    config: ConfigPath,
    runner: Annotated[str | None, typer.Option(help="local, dask, or a third party's")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default one per core.")] = None,
    sets: Sets = [],  # noqa: B006
    output: Output = None,
    overwrite: Annotated[bool, typer.Option(help="Replace tables of another configuration.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a config, or finish it when it was begun before."""
    from rich.console import Console

    from data_engine.progress import ProgressDisplay

    console = Console(stderr=True)
    display = ProgressDisplay(console)
    signal.signal(signal.SIGTERM, _interrupt)
    with _sentences():
        from pipelines.run import run as run_pipelines

        try:
            path = _located(config)
            outcome = run_pipelines(_config(path, sets, output, runner, workers), path.parent, display, overwrite)
        finally:
            display.stop()
        if as_json:
            print(json.dumps(outcome.run, ensure_ascii=False))
        _last_words(console, outcome)
        if outcome.dead:
            raise typer.Exit(1)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _last_words(console: Any, outcome: Any) -> None:
    """Says what there is now and what to do next."""
    for table, parts in outcome.run["tables"].items():
        console.print(f"  {table:12} {sum(p['rows'] for p in parts):7} rows in {len(parts)} parts", highlight=False)
    console.print(f"output: {outcome.output}", highlight=False, soft_wrap=True)
    if outcome.dead:
        shards = ", ".join(str(report["shard"]) for report in outcome.dead[:5])
        console.print(f"[red]{len(outcome.dead)} shards are dead[/] ({shards}): see above for the reasons. "
                      "Mend the cause and run the same command again; the other shards are kept.")  # fmt: skip
        return
    console.print(f"next: open {outcome.output}/report/index.html, or data-engine inspect {outcome.output} segments",
                  highlight=False, soft_wrap=True)  # fmt: skip


@app.command()
def plan(config: ConfigPath, sets: Sets = [], output: Output = None, as_json: AsJson = False) -> None:  # noqa: B006
    """Check a config and show the pipelines, stages and signatures, without running anything."""
    with _sentences():
        from pipelines.run import describe_plan

        path = _located(config)
        described = describe_plan(_config(path, sets, output, None, None), path.parent)
        if as_json:
            print(json.dumps(described, ensure_ascii=False))
            return
        for pipeline in described:
            shards = "as many shards as synthesize" if pipeline["shards"] is None else f"{pipeline['shards']} shards"
            typer.echo(f"{pipeline['pipeline']}: {shards}")
            for stage in pipeline["stages"]:
                table = f" -> {stage['table']}" if stage["table"] else ""
                typer.echo(f"  {stage['group']:8} {stage['stage']:12} {stage['signature'][:12]}{table}")


@app.command()
def status(folder: Folder, as_json: AsJson = False) -> None:
    """Show how far a run is: shards, rows and hours per stage, rejects by code, dead shards."""
    with _sentences():
        from data_engine.io.storage import Storage
        from data_engine.runners.books import folder_state

        state = folder_state(Storage(folder))
        if as_json:
            print(json.dumps(state, ensure_ascii=False))
        else:
            from data_engine.tables import print_status

            print_status(state)
        if any(s["shards"]["committed"] < s["shards"]["planned"] for s in state.values()):
            raise typer.Exit(1)


@app.command()
def inspect(
    folder: Folder,
    table: Annotated[str, typer.Argument(help="recordings, segments, voices, scripts, candidates, aqaa, ...")],
    rows: Annotated[int, typer.Option(min=1, help="How many rows.")] = 5,
    columns: Annotated[str | None, typer.Option(help="Columns, comma separated.")] = None,
    where: Annotated[list[str], typer.Option(help="column=value; may repeat.")] = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Show rows of a table, audio and long lists shortened."""
    with _sentences():
        from data_engine.tables import matching_rows, print_rows

        picked = matching_rows(folder, table, rows, columns, where)
        if as_json:
            for row in picked:
                print(json.dumps(row, ensure_ascii=False))
        else:
            print_rows(picked)


@app.command()
def validate(folder: Folder, as_json: AsJson = False) -> None:
    """Check every committed row of an output folder: hashes, schemas, ids, parents, token layout, masks."""
    with _sentences():
        from data_engine.validation import validate_output

        found = validate_output(folder)
        if as_json:
            print(json.dumps(found, ensure_ascii=False))
        else:
            for table, count in found["rows"].items():
                typer.echo(f"{table:12} {count:7} rows")
            for problem in found["problems"]:
                typer.echo(f"PROBLEM {problem}", err=True)
            typer.echo("valid" if not found["problems"] else f"{len(found['problems'])} problems")
        if found["problems"]:
            raise typer.Exit(1)


@app.command()
def report(folder: Folder) -> None:
    """Write the HTML report of a run anew."""
    with _sentences():
        from data_engine.io.storage import Storage
        from data_engine.report.page import write_report
        from data_engine.runners.books import read_run

        storage = Storage(folder)
        typer.echo(f"{folder}/{write_report(storage, read_run(storage))}")


@app.command()
def export(
    folder: Folder,
    target: Annotated[str, typer.Argument(help="Folder to write to (path or fsspec URI).")],
    format: Annotated[str, typer.Option(help="trl or huggingface")] = "huggingface",
    split: Annotated[str | None, typer.Option(help="train, validation or test; default all.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier export in that folder.")] = False,
) -> None:
    """Write the shards in another tool's format."""
    with _sentences():
        from data_engine.export.catalog import export as export_to

        written = export_to(folder, target, format, split, overwrite=overwrite)
        for name, count in written.rows.items():
            typer.echo(f"{name:24} {count:7} rows")
        for reason, count in written.left_out.items():
            typer.echo(f"left out: {count} rows, {reason}")
        typer.echo(f"wrote {len(written.files)} files to {written.target}; its README.md says how to load them")


@app.command()
def schemas(name: Annotated[str | None, typer.Argument(help="A schema; default all.")] = None) -> None:
    """Show the record types: columns, types, units, meaning."""
    with _sentences():
        from data_engine.core.errors import ConfigError
        from data_engine.core.schema import known_schemas

        known = known_schemas()
        chosen = [schema for schema in known if name in (None, schema.name, str(schema))]
        if not chosen:
            raise ConfigError(f"there is no schema '{name}'; known: {', '.join(s.name for s in known)}")
        for schema in chosen:
            typer.echo(f"{schema}: {schema.description}")
            for field in schema.fields if name else ():
                unit = f" [{field.unit}]" if field.unit else ""
                null = "?" if field.nullable else ""
                typer.echo(f"  {field.name}: {field.type}{null}{unit}  {field.description}")


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check this machine: libraries, weights, disk, memory; say what each missing thing costs."""
    with _sentences():
        from data_engine.doctor import examine

        findings = examine()
        if as_json:
            print(json.dumps(findings, ensure_ascii=False))
            return
        for finding in findings:
            mark = {"ok": "ok  ", "missing": "--  ", "problem": "!!  "}[finding["state"]]
            typer.echo(f"{mark}{finding['what']:28} {finding['detail']}")
        if any(finding["state"] == "problem" for finding in findings):
            raise typer.Exit(1)


def main() -> None:
    """Entry point; a closed pipe (`data-engine ... | head`) is not an error."""
    command: Callable[[], Any] = app
    try:
        command()
    except BrokenPipeError:
        sys.stderr.close()


if __name__ == "__main__":
    main()
