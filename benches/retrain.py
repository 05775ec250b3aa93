"""What a retraining is worth: false alarms under another light before and after, and whether defects are still caught.

    python3 benches/retrain.py --program target/release/inspectord --model models/bottle --data bottle --penalty photos

--data is laid out as MVTec AD is, and --model was trained on its train/good. The light is changed by factors on red,
green and blue. Of train/good, --new pictures under the new light are dropped in, and the others are the camera's
`normals`; test/ is judged under both lights by the version before and the version after. Needs Pillow.
"""

import argparse
import json
import pathlib
import resource
import shutil
import subprocess
import tempfile
import time

from PIL import Image

SETTINGS = """
[box]
name = "bench"
[mqtt]
enabled = false
[store]
path = "store"
[retrain]
path = "retrain"
steps = {steps}
learning_rate = {learning_rate}
threads = {threads}
idle = {idle}
false_positive_rate = {rate}
{penalty}
[[camera]]
name = "top"
model = "{model}"
normals = "normals"
[camera.source]
kind = "folder"
path = "normals"
"""


def relit(picture, light):
    bands = picture.convert("RGB").split()
    return Image.merge("RGB", [band.point(lambda v, f=f: int(v * f)) for band, f in zip(bands, light)])


def run(program, *arguments):
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stdout + done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def processor_minutes():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) / 60


def judge(program, model, folder):
    verdicts = run(program, "inspect", "--model", model, "--json", *sorted(folder.iterdir()))
    return [verdict["score"] for verdict in verdicts], verdicts[0]["threshold"]


def auroc(normal, anomalous):
    pairs = [(a > n) + (a == n) / 2 for n in normal for a in anomalous]
    return sum(pairs) / len(pairs)


def table(program, model, tests):
    judged = {(light, kind): judge(program, model, folder) for light, kind, folder in tests}
    rows = {}
    for (light, kind), (scores, threshold) in judged.items():
        alarms = f"{sum(score > threshold for score in scores):>3} of {len(scores)}"
        separated = "" if kind == "good" else f"{auroc(judged[light, 'good'][0], scores):.3f}"
        rows[light, kind] = f"{alarms:<11}{separated:<7}"
    return rows, next(iter(judged.values()))[1]


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--program", type=pathlib.Path, required=True)
    options.add_argument("--model", type=pathlib.Path, required=True)
    options.add_argument("--data", type=pathlib.Path, required=True)
    options.add_argument("--normals", type=pathlib.Path, help="what the model was trained on, where not all of it")
    options.add_argument("--penalty", type=pathlib.Path)
    options.add_argument("--new", type=int, default=20)
    options.add_argument("--most", type=int, default=60, help="pictures of each kind to judge")
    options.add_argument("--steps", type=int, default=300)
    options.add_argument("--learning-rate", type=float, default=1e-4)
    options.add_argument("--keep", type=pathlib.Path, help="where to keep the new version")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--busy", action="store_true", help="take more than idle time")
    options.add_argument("--rate", type=float, default=0.001)
    options.add_argument("--light", type=float, nargs=3, default=[0.95, 0.87, 0.76])
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        normals, samples = root / "normals", root / "retrain/top/samples/normal"
        normals.mkdir()
        samples.mkdir(parents=True)
        # New samples must not be parts that the model was trained on: give its pictures as --normals, if it had fewer.
        good = sorted((given.data / "train/good").iterdir())
        known = {path.name for path in given.normals.iterdir()} if given.normals else set()
        fresh = [path for path in good if path.name not in known]
        new = fresh[:: max(1, len(fresh) // given.new)][: given.new]
        for path in new:
            relit(Image.open(path), given.light).save(samples / (path.stem + ".png"))
        for path in good:
            if path not in new and (path.name in known or not known):
                (normals / path.name).symlink_to(path.resolve())
        tests = []
        for kind in sorted((given.data / "test").iterdir()):
            for name, light in [("as it was", None), ("new light", given.light)]:
                to = root / "test" / name / kind.name
                to.mkdir(parents=True)
                for path in sorted(kind.iterdir())[: given.most]:
                    picture = Image.open(path).convert("RGB")
                    (relit(picture, light) if light else picture).save(to / (path.stem + ".png"))
                tests.append((name, kind.name, to))
        settings = root / "inspectord.toml"
        penalty = f'penalty = "{given.penalty.resolve()}"' if given.penalty else ""
        settings.write_text(
            SETTINGS.format(
                steps=given.steps,
                learning_rate=given.learning_rate,
                threads=given.threads,
                idle=str(not given.busy).lower(),
                rate=given.rate,
                penalty=penalty,
                model=given.model.resolve(),
            )
        )
        before, old_threshold = table(given.program, given.model, tests)
        began, spent = time.monotonic(), processor_minutes()
        done = run(given.program, "retrain", "--config", settings, "--json")[-1]
        minutes, busy = (time.monotonic() - began) / 60, processor_minutes() - spent
        after_model = root / "retrain/top/versions" / done["report"]["version"]
        after, threshold = table(given.program, after_model, tests)
        print(f"{given.steps} steps at {given.learning_rate}: {done['ending']} after {minutes:.1f} minutes, "
              f"{busy:.1f} of one processor core")
        for check in done["report"]["checks"]:
            print(f"  {'+' if check['passed'] else '-'} {check['name']}: {check['words']}")
        print(f"threshold {old_threshold:.3f} before, {threshold:.3f} after; alarms and AUROC against good parts")
        print(f"{'light':<12}{'kind':<16}{'before':<18}after")
        for (light, kind), row in before.items():
            print(f"{light:<12}{kind:<16}{row}{after[light, kind]}")
        if given.keep:
            shutil.copytree(after_model, given.keep, dirs_exist_ok=True)


main()
