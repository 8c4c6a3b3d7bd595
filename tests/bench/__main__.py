"""Prints the benchmark table."""

from tests.bench.curate import curate_hours
from tests.bench.measure import print_table
from tests.bench.models import QUALITIES, speech_models
from tests.bench.overhead import engine_over_bare_loop
from tests.bench.runners import runners_over_local
from tests.bench.scale import look_at_rows, plan_million, resume_markers
from tests.bench.startup import help_time, import_time
from tests.bench.tokens import interleave_hour

rows = [import_time(), help_time(), interleave_hour(), engine_over_bare_loop()]
curated = [curate_hours(quality) for quality in QUALITIES]
print_table(
    [*rows, *speech_models(), *curated, plan_million(), resume_markers(), *look_at_rows(), *runners_over_local()]
)
