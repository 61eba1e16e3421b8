"""How long the lessons take: each in a process of its own, one after the other, at full size.

    python -m examples.lessons.clock                 # all of them, into runs/lessons/times.md, a line after each
    python -m examples.lessons.clock --quick         # the smaller sizes
    python -m examples.lessons.clock --lessons 1 13  # some; without 1, the first that needs its net trains it, and is longer

Nothing else should run beside it. The lessons write into a new folder, which is gone afterwards, so that none finds what an
earlier run has left; kernels that were compiled before stay compiled.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from minidl.io import files

LESSONS = pathlib.Path(__file__).resolve().parent
OUT = pathlib.Path("runs/lessons/times.md")
HEAD = ["| lesson | seconds |", "|---|---|"]


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 1, and what it printed, where a lesson fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the lessons with smaller sizes")
    parser.add_argument("--lessons", type=int, nargs="+", metavar="N", help="some of them; by default all")
    parser.add_argument("--out", type=pathlib.Path, default=OUT, help="the table; by default %(default)s")
    asked = parser.parse_args(arguments)
    paths = {int(path.name[:2]): path for path in sorted(LESSONS.glob("[0-9][0-9]_*.py"))}
    if unknown := set(asked.lessons or ()) - set(paths):
        parser.error(f"--lessons: expected numbers from 1 to {max(paths)}, got {', '.join(map(str, sorted(unknown)))}")
    lines, total = [f"{os.cpu_count()} CPUs{', --quick' if asked.quick else ''}", "", *HEAD], 0.0
    with tempfile.TemporaryDirectory() as folder:
        for number in asked.lessons or paths:
            seconds, done = timed(paths[number], asked.quick, folder)
            if done.returncode:
                print(f"error: {paths[number].name}: {done.stdout}{done.stderr}", file=sys.stderr)
                return 1
            total += seconds
            print(f"{paths[number].stem}: {seconds:.1f} s", flush=True)
            lines.append(f"| {paths[number].stem} | {seconds:.1f} |")
            asked.out.parent.mkdir(parents=True, exist_ok=True)
            files.write(asked.out, "\n".join([*lines, f"| all | {total:.1f} |"]) + "\n")
    print(f"now look at {asked.out}: {total:.1f} s in all")
    return 0


def timed(path: pathlib.Path, quick: bool, folder: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    """The seconds from the command to its end, and what came of it."""
    words = [sys.executable, str(path), *(["--quick"] if quick else [])]
    around = os.environ | {"MINIDL_LESSONS": folder, "MINIDL_QUICK": "0"}
    begin = time.perf_counter()
    done = subprocess.run(words, env=around, capture_output=True, text=True)
    return time.perf_counter() - begin, done


if __name__ == "__main__":
    sys.exit(main())
