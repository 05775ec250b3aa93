"""What a retraining costs inspection that runs beside it: the daemon's own timings with it and without, in turn.

    python3 benches/beside.py --program target/release/inspectord --model models/demo --normals pictures

The daemon inspects the simulated line at --rate parts a second. Beside it, as it would start it (one thread, idle
priority), --model is retrained on --normals, and halted with SIGSTOP in every other window of --seconds. Windows differ
in nothing but the retraining, so that their ratio also means something on a machine that does other things.
"""

import argparse
import datetime
import json
import os
import pathlib
import signal
import statistics
import subprocess
import tempfile
import time

SETTINGS = """
[box]
name = "bench"
[mqtt]
enabled = false
[web]
enabled = false
[store]
path = "store"
min_free_megabytes = 0
[retrain]
path = "{path}"
enabled = {enabled}
steps = 1000000
threads = {threads}
idle = {idle}
[[camera]]
name = "top"
model = "{model}"
normals = "{normals}"
threshold = 1e9
[camera.source]
kind = "simulated"
rate = {rate}
"""


def p99(values):
    return sorted(values)[int(0.99 * (len(values) - 1))]


def captured(part):
    whole, _, fraction = part["captured_at"].rstrip("Z").partition(".")
    return datetime.datetime.fromisoformat(f"{whole}.{fraction[:6]:0<6}+00:00")


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--program", type=pathlib.Path, required=True)
    options.add_argument("--model", type=pathlib.Path, required=True)
    options.add_argument("--normals", type=pathlib.Path, required=True)
    options.add_argument("--windows", type=int, default=10, help="pairs of windows")
    options.add_argument("--seconds", type=float, default=10)
    options.add_argument("--rate", type=float, default=20)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--busy", action="store_true", help="without idle priority")
    given = options.parse_args()
    program = given.program.resolve()
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)

        def settings(name, **more):
            path = root / f"{name}.toml"
            values = dict(threads=given.threads, idle=str(not given.busy).lower(), rate=given.rate)
            values |= dict(model=given.model.resolve(), normals=given.normals.resolve(), path=name)
            path.write_text(SETTINGS.format(**values, **more))
            return path

        running = settings("running", enabled="false")
        learning = settings("learning", enabled="true")
        # As the daemon does it.
        retrain = [program, "retrain", "--config", learning, "--json", "--with-parent", str(os.getpid())]
        daemon = subprocess.Popen([program, "run", "--config", running], stderr=subprocess.DEVNULL)
        retraining = subprocess.Popen(retrain, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        windows = []
        try:
            for line in retraining.stdout:
                progress = json.loads(line)
                if progress["event"] == "training" and progress["done"] > 0:
                    break
            else:
                raise SystemExit("the retraining ended before it trained")
            for _ in range(given.windows):
                for name, tell in [("alone", signal.SIGSTOP), ("beside", signal.SIGCONT)]:
                    retraining.send_signal(tell)
                    time.sleep(0.5)
                    begun = datetime.datetime.now(datetime.timezone.utc)
                    time.sleep(given.seconds)
                    windows.append((name, begun, datetime.datetime.now(datetime.timezone.utc)))
        finally:
            retraining.kill()
            daemon.terminate()
            daemon.wait()
        history = [program, "history", "--config", running, "--json", "--limit", "10000000"]
        told = subprocess.run(history, capture_output=True, text=True, check=True).stdout
    parts = [json.loads(line) for line in told.splitlines()]
    parts = [part for part in parts if part["decision"] != "uninspected"]
    if not parts:
        raise SystemExit("the daemon inspected nothing: run it by itself to see why")
    for stage in ["infer", "total"]:
        of = {"alone": [], "beside": []}
        for name, begun, ended in windows:
            of[name].append([p["timings_ms"][stage] for p in parts if begun <= captured(p) <= ended])
        pairs = [p99(b) / p99(a) for a, b in zip(of["alone"], of["beside"])]
        for name in of:
            all_of = [t for window in of[name] for t in window]
            print(f"{stage:<6}{name:<7} {len(all_of)} parts: median {statistics.median(all_of):.2f} ms, "
                  f"p99 {p99(all_of):.2f} ms, least window's p99 {min(map(p99, of[name])):.2f} ms")
        print(f"{stage:<6}p99 beside over alone: {statistics.median(pairs):.3f} in the median of {len(pairs)} pairs")


main()
