"""How fast is Unmask? Every figure is a ratio of things timed in turn, in one run: 'make bench'.

    python benchmarks/speed.py [detect peer faces classifier startup memory preprocess train]
    python benchmarks/speed.py classifier --model exported/int8/xception_best.xml

Makes its own inputs in ``build/bench``, once, which takes some minutes. Needs the extras 'train'
and 'bench'. Let the machine do nothing else meanwhile: how busy it was with other things is said on
standard error. Where the time goes and what was tried is in docs/performance.md.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import inputs
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
TRAINED = ROOT / "models" / "xception_best.h5"
UNMASK = [sys.executable, "-m", "unmask"]
SETTINGS = {"model": ""}  # of 'detect'; --model changes it
Row = tuple[str, str, str]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", choices=[*BENCHMARKS, []], help="default: all")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "bench")
    parser.add_argument(
        "--model", default="", help="the .xml to judge with, instead of the shipped"
    )
    args = parser.parse_args()
    if args.runs < 1:
        parser.error("--runs is 1 or more")
    args.folder.mkdir(parents=True, exist_ok=True)
    SETTINGS["model"] = args.model
    print(f"{os.cpu_count()} processors, {processor_name()}\n")
    print("| what | measured | goal |\n|---|---|---|")
    for name in args.what or BENCHMARKS:
        for what, measured, goal in BENCHMARKS[name](args.folder, args.runs):
            print(f"| {what} | {measured} | {goal} |", flush=True)


def detect(folder: Path, runs: int) -> Iterator[Row]:
    """Videos: against decoding alone."""
    from unmask import Analyzer

    exact, fast = Analyzer(**SETTINGS), Analyzer(sampling="fast", **SETTINGS)
    for height, faces in ((1080, 1), (1080, 2), (720, 1)):
        clip = inputs.clip(folder, height, faces, 60)
        things = [lambda c=clip: decode(c), lambda c=clip: exact.analyze(c)]
        if faces == 1:
            things.append(lambda c=clip: fast.analyze(c))
        decoding, *ours = in_turn(runs, *things)
        name = f"60 s of {height}p, {faces} person{'s' * (faces > 1)}"
        yield f"decoding alone, {name}", seconds(decoding), ""
        for times, how, goal in zip(ours, ("", ", --sampling fast"), ("1.25", "0.6"), strict=False):
            bound = f"at most {goal} x" if height == 1080 else ""
            yield f"`detect`{how}, against that", ratio(times, decoding), bound


def peer(folder: Path, runs: int) -> Iterator[Row]:
    """The pipeline that others write, against ours."""
    from unmask import Analyzer

    clip, analyzer = inputs.clip(folder, 1080, 1, 10), Analyzer(**SETTINGS)
    usual = StraightforwardPipeline()
    theirs, ours, decoding, own_decoding = in_turn(
        max(1, runs // 2), lambda: usual(clip), lambda: analyzer.analyze(clip),
        lambda: usual.decode(clip), lambda: sample(clip),
    )  # fmt: skip
    yield "OpenCV, MTCNN and Keras, 10 s of 1080p", seconds(theirs), ""
    yield "that against `detect`", ratio(theirs, ours), "at least 10 x"
    bare = [[t - d for t, d in zip(times, spent, strict=True)]
            for times, spent in ((theirs, decoding), (ours, own_decoding))]  # fmt: skip
    yield "the same, each without its decoding", ratio(*bare), "at least 20 x"


def faces(folder: Path, runs: int) -> Iterator[Row]:
    """RetinaFace at the working size, on one core."""
    from unmask.faces import FaceDetector

    images = list(sample(inputs.clip(folder, 1080, 1, 10)))
    small = [cv2.resize(image, (640, 360), interpolation=cv2.INTER_AREA) for image in images]
    detector = FaceDetector(threads=1)
    cv2.setNumThreads(1)
    working, whole = in_turn(
        runs,
        lambda: [detector.detect(i) for i in small],
        lambda: [detector.detect(i) for i in images],
    )
    cv2.setNumThreads(-1)
    for times, what, goal in (
        (working, "640x360", "under 8 ms"), (whole, "1920x1080, made smaller first", ""),
    ):  # fmt: skip
        each = 1000 * statistics.median(times) / len(images)
        yield f"RetinaFace, a picture of {what}, one core", f"{each:.1f} ms", goal


def classifier(folder: Path, runs: int) -> Iterator[Row]:
    """The classifier on one core, against ONNX Runtime in float32 on the same crops."""
    import onnxruntime

    from unmask.classifier import Classifier

    onnx = folder / "xception_best.onnx"
    if not onnx.exists():
        run(["export", str(TRAINED), str(folder)])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    crops = np.stack([cv2.resize(image, (256, 256)) for image in inputs.people()[:8]])
    fed = {session.get_inputs()[0].name: crops.astype(np.float32) / 255}
    ours = {how: Classifier(SETTINGS["model"] or None, 1, how) for how in ("auto", "f32")}
    theirs, auto, f32 = in_turn(
        runs, lambda: session.run(None, fed), lambda: ours["auto"].logits(crops),
        lambda: ours["f32"].logits(crops),
    )  # fmt: skip
    for times, name, goal in (
        (auto, "", "at least 3.3 x"), (f32, ", --precision f32", ""),
    ):  # fmt: skip
        rate = len(crops) / statistics.median(times)
        yield (
            f"classifier{name}, one core, against ONNX Runtime fp32",
            f"{ratio(theirs, times)}, {rate:.1f} img/s", goal,
        )  # fmt: skip


def startup(_: Path, runs: int) -> Iterator[Row]:
    """Whole processes."""
    image = next((inputs.SAMPLES / "people").glob("*.jpg"))
    commands = (["--help"], "under 0.3 s"), (["detect", str(image)], "under 1.2 s")
    for arguments, goal in commands:
        (times,) = in_turn(runs, lambda a=arguments: run(a))
        shown = " of one image" if len(arguments) > 1 else ""
        yield f"`unmask {arguments[0]}`{shown}, whole process", seconds(times), goal


def memory(folder: Path, _: int) -> Iterator[Row]:
    """Peak memory does not grow with the length of a video."""
    short, long = (peak_megabytes(inputs.clip(folder, 720, 1, s)) for s in (10, 1800))
    yield "peak memory, 10 s of 720p", f"{short:.0f} MB", "under 700 MB"
    yield "peak memory, 30 min of 720p", f"{long:.0f} MB ({long / short - 1:+.1%})", "within 5 %"


def preprocess(folder: Path, runs: int) -> Iterator[Row]:
    """Two workers against one, with their start and without."""
    dataset = folder / "dataset"
    clip = inputs.clip(folder, 720, 1, 10)
    for label in ("real", "fake"):
        (dataset / label).mkdir(parents=True, exist_ok=True)
        for number in range(8):
            copy = dataset / label / f"{label}{number}.mp4"
            if not copy.exists():
                os.link(clip, copy)

    def with_workers(count: int) -> None:
        with tempfile.TemporaryDirectory() as crops:
            run(["preprocess", str(dataset), f"{crops}/out", "--workers", str(count)])

    one, two = in_turn(max(1, runs // 2), lambda: with_workers(1), lambda: with_workers(2))
    rate = 16 / statistics.median(two)
    yield (
        "`preprocess`, 16 clips of 10 s, two workers against one",
        f"{ratio(one, two)}, {rate:.2f} videos/s", "at least 1.8 x",
    )  # fmt: skip


def train(_: Path, runs: int) -> Iterator[Row]:
    """A frozen base: its features, and a plain Keras fit of the head on it, an epoch each."""
    from unmask.training import model_file, xception
    from unmask.training.moments import features_of
    from unmask.training.ridge import solve

    people = np.stack([cv2.resize(image, (256, 256)) for image in inputs.people()])
    crops = np.tile(people, (4, 1, 1, 1)).astype(np.float32) / 255
    labels = np.arange(len(crops)) % 2
    plain = xception.build(head="moments")
    model_file.initialise(plain, str(TRAINED))
    for layer in plain.layers[:-1]:
        layer.trainable = False
    plain.compile("adam", "binary_crossentropy")
    see = features_of(TRAINED)
    drawn = [crops[i : i + 24] for i in range(0, len(crops), 24)]
    features = np.concatenate([see(batch)[0] for batch in drawn])
    once, never = np.ones(len(crops)), np.full(len(crops), -1)
    theirs, ours, again = in_turn(
        runs, lambda: plain.fit(crops, labels, batch_size=24, verbose=0),
        lambda: [see(batch) for batch in drawn],
        lambda: solve(features, labels, once, never, 0.3),
    )  # fmt: skip
    rate = len(crops) / statistics.median(ours)
    yield (
        "`train --head moments`, features of a frozen base, against an epoch of Keras's `fit`",
        f"{ratio(theirs, ours)}, {rate:.0f} img/s", "at least 3 x",
    )  # fmt: skip
    whole = [one + other for one, other in zip(ours, again, strict=True)]
    ten = [10 * times for times in theirs]
    yield (
        "these and the head, all at once, against ten such epochs",
        ratio(ten, whole),
        "at least 3 x",
    )


BENCHMARKS: dict[str, Callable[[Path, int], Iterator[Row]]] = {
    "detect": detect, "peer": peer, "faces": faces, "classifier": classifier, "startup": startup,
    "memory": memory, "preprocess": preprocess, "train": train,
}  # fmt: skip


class StraightforwardPipeline:
    """What most published scripts do: read all frames, MTCNN at full size, a face at a time."""

    def __init__(self) -> None:
        from mtcnn import MTCNN

        from unmask.training import model_file

        self._mtcnn = MTCNN()
        self._model = model_file.load(TRAINED)

    def decode(self, clip: Path) -> list[np.ndarray]:
        """Every 15th frame, RGB; all are read."""
        capture, images, number = cv2.VideoCapture(str(clip)), [], 0
        while (read := capture.read())[0]:
            if number % 15 == 0:
                images.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
            number += 1
        capture.release()
        return images

    def __call__(self, clip: Path) -> None:
        for image in self.decode(clip):
            for face in self._mtcnn.detect_faces(image):
                x, y, width, height = (max(0, v) for v in face["box"])
                crop = cv2.resize(image[y : y + height, x : x + width], (256, 256))
                self._model.predict(crop[None].astype(np.float32) / 255, verbose=0)


def in_turn(runs: int, *things: Callable[[], object]) -> list[list[float]]:
    """Seconds that each thing takes in every run, one after the other, after one warm-up.

    Says on standard error how busy the machine was with something else.
    """
    times: list[list[float]] = [[] for _ in things]
    began, own, others = time.perf_counter(), own_seconds(), busy_seconds()
    for number in range(runs + 1):
        for thing, taken in zip(things, times, strict=True):
            start = time.perf_counter()
            thing()
            if number:
                taken.append(time.perf_counter() - start)
    others = busy_seconds() - others - (own_seconds() - own)
    share = others / (time.perf_counter() - began) / (os.cpu_count() or 1)
    print(f"(other processes took {max(0.0, share):.0%} of the machine)", file=sys.stderr)
    return times


def own_seconds() -> float:
    """Processor time of this process and its children that have ended."""
    return sum(os.times()[:4])


def busy_seconds() -> float:
    """Processor time that anybody took since the machine started."""
    with open("/proc/stat") as file:
        user, nice, system = map(int, file.readline().split()[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def ratio(times: list[float], to: list[float]) -> str:
    """The median of the runs' ratios, and their range."""
    each = [a / b for a, b in zip(times, to, strict=True)]
    return f"{statistics.median(each):.2f} x ({min(each):.2f} to {max(each):.2f})"


def seconds(times: list[float]) -> str:
    """The median and the range."""
    return f"{statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})"


def run(arguments: list[str]) -> None:
    """One whole process."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([*UNMASK, *arguments], check=True, **quiet)


def decode(clip: Path) -> None:
    """All frames of a clip, decoded as fast as PyAV does on all processors, and dropped."""
    with av.open(str(clip)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for _ in container.decode(video=0):
            pass


def sample(clip: Path) -> list[np.ndarray]:
    """The frames of a clip that 'detect' looks at."""
    from unmask.video import Video

    with Video(clip) as video:
        return [frame.image for frame in video.sample()]


def peak_megabytes(clip: Path) -> float:
    """Most memory that 'detect' of a clip ever held, its libraries included."""
    code = (
        "import sys, unmask; unmask.analyze(sys.argv[1], model=sys.argv[2]);"
        "print(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1])"
    )
    output = subprocess.check_output([sys.executable, "-c", code, str(clip), SETTINGS["model"]])
    return int(output) / 1024


def processor_name() -> str:
    """What the machine calls its processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()
