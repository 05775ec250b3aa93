"""The checks and measurements behind gpu.sh, most important first, each with a time limit of its own.

A check that raises is a FAIL like one whose figure misses its goal. Goals are those of an H200 (`GOALS`); on other cards
the figures count and the goals do not. Needs Python 3.9 alone; PyTorch for the comparisons only.
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import time

GOALS = {"small 1 ms": 0.35, "small 32 per second": 5000, "medium 32 per second": 1700,
         "over compiled": 1.5, "over eager": 4.0, "minutes for 70,000 steps": 10.0}
HERE = pathlib.Path(__file__).resolve().parent


class Skip(Exception):
    """There is nothing to run the check with."""


class Session:
    def __init__(self, arguments):
        self.program = arguments.program.resolve()
        self.data, self.peers, self.out = arguments.data, arguments.peers, arguments.out
        self.end = time.monotonic() + 60 * arguments.minutes
        self.results, self.figures = [], {}
        self.out.mkdir(parents=True, exist_ok=True)
        self.is_h200 = False

    def run(self, name, command, limit, watch=None, environment=None):
        """Runs a command, keeps its output, and returns what it printed; `watch` hears each line as it comes."""
        limit = min(limit, self.end - time.monotonic())
        if limit < 5:
            raise Skip("no time is left")
        lines, errors = [], open(self.out / f"{name}.err", "w")
        process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=errors, text=True,
                                   env={**os.environ, **(environment or {})})
        killer = threading.Timer(limit, process.kill)
        killer.start()
        try:
            for line in process.stdout:
                lines.append(line)
                if watch:
                    watch(line)
            code = process.wait()
        finally:
            late = not killer.is_alive()
            killer.cancel()
            errors.close()
            (self.out / f"{name}.out").write_text("".join(lines))
        if late:
            raise RuntimeError(f"{name}: stopped after {limit:.0f} s; see {name}.out and {name}.err")
        if code != 0:
            tail = (self.out / f"{name}.err").read_text()[-400:]
            raise RuntimeError(f"{name}: exit code {code}: {tail}")
        return "".join(lines)

    def bench(self, name, size, batch, frames, *more, limit=60):
        command = [self.program, "bench", "--json", "--engine", "cuda", "--size", size, "--batch", batch,
                   "--frames", frames, *more]
        return json.loads(self.run(name, command, limit).splitlines()[-1])["results"][0]

    def check(self, name, work):
        began = time.monotonic()
        try:
            figures = work() or {}
            fault = figures.pop("fault", None)
            verdict, detail = ("FAIL" if fault else "PASS"), fault or ""
        except Skip as skip:
            verdict, detail, figures = "SKIP", str(skip), {}
        except Exception as error:  # whatever it was, the other checks go on
            verdict, detail, figures = "FAIL", f"{type(error).__name__}: {error}", {}
        self.figures[name] = figures
        self.results.append({"check": name, "verdict": verdict, "detail": detail, "figures": figures,
                             "seconds": round(time.monotonic() - began, 1)})
        shown = ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items())
        print(f"{verdict:4} {name}: {shown} {detail}".rstrip(), flush=True)


def nvidia_smi(query):
    text = subprocess.run(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"], capture_output=True,
                          text=True, check=True, timeout=20).stdout
    return [field.strip() for field in text.splitlines()[0].split(",")]


def machine(s):
    name, driver, memory, clock = nvidia_smi("name,driver_version,memory.total,clocks.max.sm")
    s.is_h200 = "H200" in name
    version = s.run("version", [s.program, "--version"], 20).strip()
    return {"card": name, "driver": driver, "MiB": memory, "max MHz": clock, "program": version}


def correct(s, size, image, batch):
    result = s.bench(f"correct-{size}-{image}-{batch}", size, batch, 1, "--image-size", image, "--against", "cpu", limit=90)
    distance = result["distance"]
    fault = None if distance is not None and distance <= 1e-2 else "the map is further than 1e-2 from the f32 one"
    return {"distance": distance, "engine": result["engine"], "fault": fault}


def speed(s, size, batch, frames):
    result = s.bench(f"speed-{size}-{batch}", size, batch, frames)
    figures = {"p50 ms": result["latency_ms"]["p50"], "p99 ms": result["latency_ms"]["p99"],
               "min ms": result["latency_ms"]["min"], "per second": result["pictures_per_second"],
               "TFLOP/s": result["gflops"] / 1e3}
    for key, value, better in ((f"{size} {batch} ms", figures["p50 ms"], lambda v, g: v <= g),
                               (f"{size} {batch} per second", figures["per second"], lambda v, g: v >= g)):
        if s.is_h200 and key in GOALS and not better(value, GOALS[key]):
            figures["fault"] = f"the goal is {GOALS[key]}"
    return figures


def choice(s, name, expected, environment):
    """Which engine `auto` takes."""
    command = [s.program, "bench", "--json", "--size", "tiny", "--frames", 1]
    text = s.run(name, command, 60, environment=environment)
    engine = json.loads(text.splitlines()[-1])["results"][0]["engine"]
    return {"engine": engine, "fault": None if engine.startswith(expected) else f"{expected} was expected"}


def tiles(s, size, batch, frames):
    """Every kind of tile for all layers: what `tiles.rs` should know."""
    figures = {}
    for tile in ("128x128", "64x128", "128x64", "64x64"):
        command = [s.program, "bench", "--json", "--tile", tile, "--size", size, "--batch", batch, "--frames", frames]
        text = s.run(f"tile-{size}-{batch}-{tile}", command, 20)
        figures[f"{tile} ms"] = json.loads(text.splitlines()[-1])["results"][0]["latency_ms"]["p50"]
    return figures


def endurance(s):
    samples, stop = [], threading.Event()

    def sample():
        while not stop.wait(1.5):
            samples.append(int(nvidia_smi("memory.used")[0]))

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        result = s.bench("endurance", "small", 1, 100_000, limit=120)
    finally:
        stop.set()
        sampler.join()
    if len(samples) < 6:
        raise Skip("it was over before memory could be looked at six times")
    early, late = samples[len(samples) // 3], samples[-2]
    fault = f"memory grew from {early} to {late} MiB" if late > early + 2 else None
    return {"p50 ms": result["latency_ms"]["p50"], "p99 ms": result["latency_ms"]["p99"], "MiB early": early,
            "MiB late": late, "fault": fault}


def sanitizer(s, tool):
    found = shutil.which("compute-sanitizer")
    if not found:
        raise Skip("compute-sanitizer is not installed")
    # Counts errors as the exit code; few frames, since everything runs many times slower.
    command = [found, "--tool", tool, "--error-exitcode", "9", s.program, "bench", "--engine", "cuda", "--size", "tiny",
               "--frames", "1", "--batch", "3", "--image-size", "268x300"]
    s.run(f"sanitizer-{tool}", command, 45)


def accuracy(s, data):
    bundle = data.with_name(data.name + ".model")
    auroc = {}
    for engine in ("cpu", "cuda"):
        text = s.run(f"evaluate-{data.name}-{engine}", [s.program, "evaluate", "--json", "--model", bundle, "--data", data,
                                                        "--engine", engine], 90)
        auroc[engine] = json.loads(text.splitlines()[-1])["image_auroc"]
    apart = abs(auroc["cpu"] - auroc["cuda"])
    fault = "AUROC differs by more than 0.05 points" if apart > 5e-4 else None
    return {"cpu": auroc["cpu"], "cuda": auroc["cuda"], "fault": fault}


def agreement(s, size, steps=6):
    """The losses of the first and the last of a few steps, on the processor and on the card."""
    losses = {}
    for device in ("cpu", "cuda:0"):
        seen = losses[device] = []

        def watch(line):
            step = json.loads(line) if line.startswith("{") else {}
            if step.get("event") == "training":
                seen.append(step)

        train(s, f"agreement-{size}-{device.replace(':', '')}", device, size, steps, 90, watch)
    figures, fault = {}, None
    for which, place, bounds in (("first", 0, {"hard": 1e-3, "penalty": 5e-3, "autoencoder": 1e-3}),
                                 ("last", -1, {"hard": 0.02, "penalty": 0.05, "autoencoder": 0.02})):
        cpu, cuda = losses["cpu"][place], losses["cuda:0"][place]
        # Each step begins where the last one ended.
        for name, bound in bounds.items():
            if name not in cpu or cpu[name] is None:
                continue
            apart = abs(cpu[name] - cuda[name]) / abs(cpu[name])
            figures[f"{which} {name}"] = apart
            if not apart <= bound:
                fault = fault or f"{which} step: {name} is {cuda[name]:.4g} instead of {cpu[name]:.4g}"
    return {**figures, "fault": fault}


def trained_accuracy(s, steps):
    """What a training on the card is worth, with the teacher inside the program."""
    data, out = train(s, "trained-accuracy", "cuda:0", "small", steps, 120)
    text = s.run("trained-accuracy-evaluate", [s.program, "evaluate", "--json", "--model", out, "--data", data], 90)
    result = json.loads(text.splitlines()[-1])
    return {"image AUROC": result["image_auroc"], "AU-PRO": result["aupro_30"],
            "fault": None if result["image_auroc"] >= 0.99 else "a training on the processor reaches 0.99 and more"}


def train(s, name, device, size, steps, limit, watch=None, *more):
    """Trains on the first data set; returns that and the model's folder."""
    data = next((d for d in sets(s)), None)
    if not data:
        raise Skip("no --data")
    penalty = ["--penalty", s.data / "penalty"] if (s.data / "penalty").is_dir() else []
    out = s.out / name
    shutil.rmtree(out, ignore_errors=True)
    try:
        s.run(name, [s.program, "train", "--data", data, "--out", out, "--size", size, "--steps", steps, "--seed", 1,
                     "--device", device, "--json", *penalty, *more], limit, watch)
    except RuntimeError as error:
        if "cannot train or calibrate" in str(error):
            raise Skip("built with cuda-inference, without training")
        raise
    return data, out


def training(s, size, steps):
    seen = []

    def watch(line):
        try:
            step = json.loads(line)
        except ValueError:
            return
        if step.get("event") == "training":
            seen.append((time.monotonic(), step["done"]))

    fault = None
    try:
        train(s, f"trained-{size}", "cuda:0", size, steps, 100, watch, "--teacher", "random")
    except RuntimeError as error:
        # How far it came is worth telling all the same.
        fault = str(error)
    if len(seen) < 3:
        raise RuntimeError(fault or "too few steps were told")
    (t0, d0), (t1, d1) = seen[len(seen) // 3], seen[-1]
    each = (t1 - t0) / max(d1 - d0, 1)
    figures = {"ms a step": 1e3 * each, "minutes for 70,000 steps": each * 70_000 / 60, "fault": fault}
    goal = GOALS["minutes for 70,000 steps"]
    if s.is_h200 and size == "small" and figures["minutes for 70,000 steps"] > goal:
        figures["fault"] = f"the goal is {goal} minutes"
    return figures


def needs_pytorch():
    if subprocess.run([sys.executable, "-c", "import torch"], capture_output=True).returncode:
        raise Skip("PyTorch is not installed")


def training_peer(s, size):
    needs_pytorch()
    text = s.run(f"train-peer-{size}", [sys.executable, HERE / "training_step.py", size, "60", "8", "cuda"], 60)
    median = float(re.search(r"median ([0-9.]+) s", text).group(1))
    figures = {"ms a step": 1e3 * median}
    own = s.figures.get(f"train {size}", {}).get("ms a step")
    if own:
        figures["own speed over it"] = 1e3 * median / own
    return figures


def peers(s):
    if not s.peers or not (s.peers / "bench_gpu.py").is_file():
        raise Skip("no --peers")
    needs_pytorch()
    figures = {}

    def watch(line):
        words = line.split()
        if len(words) > 5 and words[1] == "batch":
            figures[f"{words[0]} {words[2]} {words[3]} ms"] = float(words[4])

    fault = None
    try:
        s.run("peers", [sys.executable, s.peers / "bench_gpu.py"], 400, watch)
    except (RuntimeError, Skip) as error:
        fault = str(error)
    for size, name in (("S", "small"), ("M", "medium")):
        for batch in (1, 8, 32):
            own = s.figures.get(f"speed {name} batch {batch}", {}).get("p50 ms")
            for kind in ("eager", "compiled"):
                theirs = figures.get(f"{size} {batch} {kind} ms")
                if own and theirs:
                    ratio = theirs / own
                    figures[f"{size} {batch} over {kind}"] = ratio
                    if ratio < GOALS[f"over {kind}"]:
                        fault = fault or f"{size} batch {batch} is {ratio:.2f} times as fast as {kind}"
    figures["fault"] = fault
    return figures


def sets(s):
    if not s.data:
        return []
    return sorted(d for d in s.data.iterdir() if (d / "test").is_dir() and d.with_name(d.name + ".model").is_dir())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--peers", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("gpu-results"))
    parser.add_argument("--minutes", type=float, default=9.5)
    s = Session(parser.parse_args())
    s.check("machine", lambda: machine(s))
    for size, image, batch in (("tiny", "256x256", 1), ("small", "256x256", 1), ("small", "300x416", 3),
                               ("medium", "256x256", 2), ("tiny", "512x384", 33)):
        s.check(f"correct {size} {image} batch {batch}", lambda: correct(s, size, image, batch))
    # What reads or writes where it should not makes every figure below worthless.
    for tool in ("memcheck", "racecheck", "synccheck", "initcheck"):
        s.check(f"sanitizer {tool}", lambda: sanitizer(s, tool))
    for size, batch, frames in (("small", 1, 3000), ("small", 8, 500), ("small", 32, 200), ("small", 128, 60),
                                ("medium", 1, 1000), ("medium", 8, 200), ("medium", 32, 80), ("medium", 128, 25),
                                ("tiny", 1, 3000)):
        s.check(f"speed {size} batch {batch}", lambda: speed(s, size, batch, frames))
    s.check("auto takes the card", lambda: choice(s, "auto-card", "CUDA", {}))
    s.check("auto without a card", lambda: choice(s, "auto-none", "CPU", {"CUDA_VISIBLE_DEVICES": "-1"}))
    for size, batch, frames in (("small", 1, 500), ("small", 32, 40), ("medium", 1, 200), ("medium", 32, 15)):
        s.check(f"tiles {size} batch {batch}", lambda: tiles(s, size, batch, frames))
    for data in sets(s):
        s.check(f"accuracy {data.name}", lambda: accuracy(s, data))
    for size in ("tiny", "small"):
        s.check(f"training agrees, {size}", lambda: agreement(s, size))
    s.check("train small", lambda: training(s, "small", 1500))
    s.check("trained on the card", lambda: trained_accuracy(s, 1000))
    s.check("train small, PyTorch", lambda: training_peer(s, "small"))
    s.check("100,000 frames", lambda: endurance(s))
    s.check("peers", lambda: peers(s))
    report = {"results": s.results, "goals": GOALS}
    (s.out / "gpu.json").write_text(json.dumps(report, indent=1))
    lines = [f"{r['verdict']:4} {r['check']} ({r['seconds']} s): {r['figures']} {r['detail']}" for r in s.results]
    (s.out / "gpu.txt").write_text("\n".join(lines) + "\n")
    failed = sum(r["verdict"] == "FAIL" for r in s.results)
    print(f"\n{failed} of {len(s.results)} checks failed; figures in {s.out / 'gpu.json'}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
