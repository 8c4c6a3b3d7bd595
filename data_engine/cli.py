"""The command line: `data-engine`. Heavy imports happen inside the commands, so `--help` is quick."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from data_engine.console import beam_changes, last_words, located, run_on_console, sentences

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
Only = Annotated[str | None, typer.Option("--only", help="One section of the config: curate, synthesize or prefer.")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine output on stdout.")]


def _config(path: Path, sets: list[str], output: str | None, runner: str | None, workers: int | None) -> Any:
    from pipelines.run import read_run_config

    changes = [*sets]
    changes += [f"output={json.dumps(output)}"] if output else []
    return read_run_config(path, [*changes, *_runner_changes(runner, workers)])


def _runner_changes(runner: str | None, workers: int | None) -> list[str]:
    return [*([f"runner.kind={runner}"] if runner else []), *([f"runner.workers={workers}"] if workers else [])]


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run(
    context: typer.Context,
    config: ConfigPath,
    runner: Annotated[str | None, typer.Option(help="local, dask, beam, or a third party's")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default one per core.")] = None,
    sets: Sets = [],  # noqa: B006
    output: Output = None,
    only: Only = None,
    overwrite: Annotated[bool, typer.Option(help="Replace tables of another configuration.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a config, or finish it when it was begun before."""
    from rich.console import Console

    console = Console(stderr=True)
    with sentences():
        path = located(config)
        changes = [*sets, *beam_changes(context.args, runner)]
        outcome = run_on_console(_config(path, changes, output, runner, workers), path.parent, console, overwrite, only)
        if as_json:
            print(json.dumps(outcome.run, ensure_ascii=False), flush=True)
        last_words(console, outcome)
        if outcome.dead:
            raise typer.Exit(1)


@app.command()
def replay(
    folder: Folder,
    code: Annotated[list[str], typer.Option(help="Reject code to replay; may repeat.")] = [],  # noqa: B006
    stage: Annotated[list[str], typer.Option(help="Only rejects of this stage; may repeat.")] = [],  # noqa: B006
    shards: Annotated[str | None, typer.Option(help="Only these shards, for example 3,7,10-12.")] = None,
    pipeline: Annotated[list[str], typer.Option(help="Only shards of this pipeline; may repeat.")] = [],  # noqa: B006
    runner: Annotated[str | None, typer.Option(help="Another runner than the run had.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Another number of processes.")] = None,
    sets: Annotated[list[str], typer.Option("--set", help="Override runner.*: runner.a.b=value.")] = [],  # noqa: B006
    dry_run: Annotated[bool, typer.Option(help="Show what would run again, change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run rejected records and dead shards again after a fix, and fold them into the run.

    Without --code, --stage or --shards: what the machine or the code is to blame for (BACKEND_FAILED, INTERNAL,
    OUT_OF_MEMORY, UNREADABLE). Dead and unfinished shards run in any case. Exit codes as of run.
    """
    from data_engine.console import replay_on_console

    with sentences():
        changes = [*sets, *_runner_changes(runner, workers)]
        if replay_on_console(folder, (code, stage, shards, pipeline), changes, dry_run, as_json):
            raise typer.Exit(1)


@app.command()
def plan(config: ConfigPath, sets: Sets = [], output: Output = None, as_json: AsJson = False) -> None:  # noqa: B006
    """Check a config and show the pipelines, stages and signatures, without running anything."""
    with sentences():
        from pipelines.run import describe_plan

        path = located(config)
        described = describe_plan(_config(path, sets, output, None, None), path.parent)
        if as_json:
            print(json.dumps(described, ensure_ascii=False))
            return
        from data_engine.tables import print_plan

        print_plan(described)


@app.command()
def status(folder: Folder, only: Only = None, as_json: AsJson = False) -> None:
    """Show how far a run is: shards, rows and hours per stage, rejects by code, dead shards.

    Exit code 0 when every shard is committed, 1 when not yet or when some are dead, 2 when the folder holds no run.
    """
    with sentences():
        from data_engine.io.storage import Storage
        from data_engine.standing import standing

        state, committed = standing(Storage(folder), only)
        if as_json:
            print(json.dumps(state, ensure_ascii=False))
        else:
            from data_engine.tables import print_status

            print_status(state)
        if not committed:
            raise typer.Exit(1)


@app.command()
def inspect(
    folder: Folder,
    table: Annotated[str, typer.Argument(help="recordings, segments, voices, scripts, candidates, aqaa, ...")],
    rows: Annotated[int, typer.Option(min=1, help="How many rows.")] = 5,
    columns: Annotated[str | None, typer.Option(help="Columns, comma separated.")] = None,
    where: Annotated[list[str], typer.Option(help="column=value; may repeat.")] = [],  # noqa: B006
    quantiles: Annotated[str | None, typer.Option(help="Quantiles of these columns instead, comma separated.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show rows of a table, audio and long lists shortened; or quantiles of measures, to set thresholds by."""
    with sentences():
        if quantiles:
            from data_engine.quantiles import print_quantiles
            from pipelines.mix import quantiles_of

            found = quantiles_of(folder, table, quantiles, where)
            print(json.dumps(found)) if as_json else print_quantiles(found)
            return
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
    with sentences():
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
    with sentences():
        from data_engine.io.storage import Storage
        from data_engine.report.page import write_report
        from data_engine.runners.books import read_run

        storage = Storage(folder)
        typer.echo(f"{folder}/{write_report(storage, read_run(storage))}")


@app.command()
def mix(
    folder: Folder,
    config: Annotated[Path, typer.Argument(help="YAML file of a mixture, or the name of a shipped one.")],
    name: Annotated[str | None, typer.Option(help="Name of the mixture; default that of the file.")] = None,
    runner: Annotated[str | None, typer.Option(help="local, dask, beam, or a third party's")] = None,
    sets: Sets = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Draw a training set by quotas of language, emotion, speed, ...; the same on every runner."""
    with sentences():
        from data_engine.export.mixture_report import print_mixture
        from pipelines.mix import mix as draw

        drawn = draw(folder, located(config), name, [*sets, *_runner_changes(runner, None)])
        print(json.dumps(drawn, ensure_ascii=False)) if as_json else print_mixture(drawn)


@app.command("filter")
def filter_(
    folder: Folder,
    policy: Annotated[Path | None, typer.Option(help="YAML file of a policy, or the name of a shipped one.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the result; default that of the policy.")] = None,
    use: Annotated[str | None, typer.Option(help="Give this earlier result force again; run: the run's own.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Count only, write nothing.")] = False,
    runner: Annotated[str | None, typer.Option(help="local, dask, beam, or a third party's")] = None,
    as_json: AsJson = False,
) -> None:
    """Decide again about the segments of a finished run by another policy, without a model; alone, show the results."""
    from data_engine.console import filter_on_console

    with sentences():
        filter_on_console(folder, policy, name, use, dry_run, runner, as_json)


@app.command()
def export(
    folder: Folder,
    target: Annotated[str, typer.Argument(help="Folder to write to (path or fsspec URI).")],
    format: Annotated[str, typer.Option(help="trl or huggingface")] = "huggingface",
    split: Annotated[str | None, typer.Option(help="train, validation or test; default all.")] = None,
    mixture: Annotated[str | None, typer.Option(help="Only the rows of this mixture; see mix.")] = None,
    decisions: Annotated[str | None, typer.Option(help="Drop by this filter result; see filter.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier export in that folder.")] = False,
) -> None:
    """Write the shards in another tool's format."""
    with sentences():
        from data_engine.export.catalog import export as export_to

        written = export_to(folder, target, format, split, overwrite=overwrite, mixture=mixture, decisions=decisions)
        for name, count in written.rows.items():
            typer.echo(f"{name:24} {count:7} rows")
        for reason, count in written.left_out.items():
            typer.echo(f"left out: {count} rows, {reason}")
        typer.echo(f"wrote {len(written.files)} files to {written.target}; its README.md says how to load them")


@app.command()
def schemas(name: Annotated[str | None, typer.Argument(help="A schema; default all.")] = None) -> None:
    """Show the record types: columns, types, units, meaning."""
    with sentences():
        from data_engine.tables import print_schemas

        print_schemas(name)


@app.command()
def train(
    model: Annotated[str, typer.Argument(help="linguistic, semantic, decoder, vocoder or speaker-lm")],
    config: Annotated[Path, typer.Option(help="YAML file of the training, or the name of a shipped one.")],
    sets: Sets = [],  # noqa: B006
) -> None:
    """Train one of the small speech models from scratch, or go on with it."""
    with sentences():
        from data_engine.training.command import train_model

        train_model(model, located(config), sets)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check this machine: libraries, weights, disk, memory; say what each missing thing costs."""
    with sentences():
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
