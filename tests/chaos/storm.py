"""Kills workers and drivers of a run at seeded random moments until the quota is used up and the run is complete.

A moment is a point of progress and a delay after it: so kills spread over a whole run on a fast and on a slow machine.
"""

import random
import subprocess
import time
from dataclasses import dataclass, field

from tests.chaos.processes import descendants, kill, outlived, workers

SECONDS_TO_END = 20.0
"""Workers of a dead driver notice within half a second; a loaded machine may need longer."""
MOST_STARTS = 400


@dataclass
class Storm:
    """What is done to a run, and what was seen.

    Attributes:
        random: Seeded source of moments and victims.
        schedule: Kills left to do, in order: (progress from 0 to 1, delay in seconds, whom).
    """

    random: object
    schedule: list
    killed_workers: int = 0
    killed_drivers: dict = field(default_factory=lambda: {"alone": 0, "with its group": 0})
    starts: int = 0
    exits_with_1: int = 0
    breaches: list = field(default_factory=list)

    @classmethod
    def of(cls, seed, worker_kills, driver_kills):
        """Returns a storm that is the same for the same seed."""
        moments = random.Random(seed)
        victims = ["worker"] * worker_kills + ["driver"] * driver_kills
        return cls(moments, sorted((moments.uniform(0, 0.97), moments.uniform(0, 1.0), whom) for whom in victims))

    @property
    def is_over(self):
        return not self.schedule

    def drive(self, command, progress, log, **options):
        """Starts a driver again and again until its run is complete.

        Args:
            command: Starts the driver.
            progress: Returns how much of the run is committed, from 0 to 1.
            log: What the drivers say.
            options: Of `subprocess.Popen`.
        """
        while self.starts < MOST_STARTS:
            self.starts += 1
            with log.open("ab") as file:
                driver = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True, **options)
                family, killed = self._attend(driver, progress)
            left = outlived(family, SECONDS_TO_END)
            if left:
                self.breaches.append(f"{len(left)} processes outlived their driver by {SECONDS_TO_END:g} s")
            if killed:
                continue
            if driver.returncode == 0:
                return
            self.exits_with_1 += driver.returncode == 1
            if driver.returncode != 1:
                self.breaches.append(f"the driver ended with {driver.returncode}: {_tail(log)}")
                return
        self.breaches.append(f"not complete after {self.starts} starts: {_tail(log)}")

    def _attend(self, driver, progress):
        """Watches a driver; returns its descendants when it ends, and whether it was killed."""
        family, moment = {}, None
        while driver.poll() is None:
            family |= descendants(driver.pid)
            if moment is None and self.schedule and progress() >= self.schedule[0][0]:
                moment = time.monotonic() + self.schedule[0][1]
            if moment is not None and time.monotonic() >= moment:
                if self.schedule[0][2] == "driver":
                    self._kill_driver(driver, family | descendants(driver.pid))
                    return family, True
                if self._kill_worker(driver):
                    moment = None
            time.sleep(0.05)
        return family, False

    def _kill_worker(self, driver):
        found = workers(driver.pid)
        if not found or not kill(self.random.choice(found)):
            return False  # it is still starting
        self.killed_workers += 1
        del self.schedule[0]
        return True

    def _kill_driver(self, driver, family):
        how = ("alone", "with its group")[sum(self.killed_drivers.values()) % 2]
        kill(driver.pid)
        if how == "with its group":
            for pid in family:
                kill(pid)
        driver.wait()
        self.killed_drivers[how] += 1
        del self.schedule[0]


def _tail(log):
    return log.read_text(errors="replace")[-600:]
