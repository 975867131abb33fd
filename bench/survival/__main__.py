"""Run scenarios, store what they show, and write the page. ``--page`` only writes it."""

from __future__ import annotations

import argparse
import datetime
import os
import threading
from concurrent.futures import ThreadPoolExecutor

from bench.survival import __doc__ as what
from bench.survival.page import read, store, write_page
from bench.survival.scenario import SEARCH_RUNS, Contender, Scenario, Stored, scenarios
from bench.survival.stage import Grounds


def main() -> None:
    """Do what the command line asks for."""
    known = scenarios()
    parser = argparse.ArgumentParser(prog="python -m bench.survival", description=what)
    parser.add_argument("names", nargs="*", metavar="SCENARIO", help=f"of {', '.join(known)}; all of them by default")
    parser.add_argument("--runs", type=int, default=20, help="of each contender (20)")
    parser.add_argument("--only", default="", help="only contenders with these words in their label")
    parser.add_argument("--jobs", type=int, default=1, help="so many runs beside each other; not for wall time (1)")
    parser.add_argument("--more", action="store_true", help="add to the runs that are stored, up to --runs")
    parser.add_argument("--page", action="store_true", help="run nothing, write the page")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in known]
    if unknown:
        parser.error(f"no scenario {unknown[0]!r}; there are: {', '.join(known)}")
    if not given.page:
        for name in given.names or known:
            chosen = [one for one in known[name].contenders if given.only in one.label]
            measure(name, known[name], chosen, runs=given.runs, jobs=given.jobs, more=given.more)
    write_page()


def measure(name: str, scenario: Scenario, contenders: list[Contender], *, runs: int, jobs: int, more: bool) -> None:
    """Run *contenders* in turns, so that a busy minute meets all of them; what is stored of others stays."""
    stored = read(name) or Stored("")
    stored.machine = (
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {os.cpu_count()} cores, at most {runs} runs of each; "
        f"load average {os.getloadavg()[2]:.0f} when they began"
    )
    if not more:
        names = {one.label for one in contenders}
        stored.measured = [one for one in stored.measured if one.label not in names]
    for one in contenders:
        stored.of(one)  # in the order of the table
    lock = threading.Lock()

    def run(contender: Contender) -> None:
        with lock:
            if not _is_open(contender, scenario, stored, runs):
                return
        last = contender.run()
        with lock:
            stored.of(contender).runs.append(last)
            print(f"{name}: {contender.label}: {last.ended} {last.seconds:.1f} s {last.numbers or ''}", flush=True)
            store(name, stored)

    with Grounds(), ThreadPoolExecutor(jobs) as pool:
        for future in [pool.submit(run, one) for _ in range(runs) for one in contenders]:
            future.result()


def _is_open(contender: Contender, scenario: Scenario, stored: Stored, runs: int) -> bool:
    """Return whether *contender* is to be run once more; of the fixed sizes the best one alone, after the search."""
    measured = stored.of(contender)
    if contender.kind != "fixed":
        return len(measured.runs) < min(runs, contender.runs or runs)
    if len(measured.finished) < len(measured.runs):
        return False
    is_best = measured is stored.best(contender.group, scenario.cost)
    return len(measured.runs) < (runs if is_best else min(SEARCH_RUNS, runs))


if __name__ == "__main__":
    main()
