"""Prints the benchmark table."""

from tests.bench.measure import print_table
from tests.bench.overhead import engine_over_bare_loop
from tests.bench.startup import help_time, import_time
from tests.bench.tokens import interleave_hour

print_table([import_time(), help_time(), interleave_hour(), engine_over_bare_loop()])
