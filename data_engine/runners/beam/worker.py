"""Beam's own worker process, for multi-processing: it logs to its driver only, not to everybody's terminal too."""

from __future__ import annotations

import logging
import sys


def main() -> None:
    """Runs Beam's worker."""
    logging.getLogger().addHandler(logging.NullHandler())  # before Beam finds no handler and prints
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
