"""How fast is Unmask? Every figure is a ratio of two things timed in turn, in one run.

    python benchmarks/speed.py [detect faces classifier startup memory preprocess] [--runs 5]

Makes its own inputs in ``build/bench`` (once). Needs the extras 'train' and 'bench'. Where the time
goes and what was tried is in docs/performance.md. Keep the machine idle meanwhile.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SAMPLES, TRAINED = ROOT / "samples", ROOT / "models" / "xception_best.h5"
FPS, GOP = 30, 90
UNMASK = [sys.executable, "-m", "unmask"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", choices=[*BENCHMARKS, []], help="default: all")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("build/bench"))
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    print(f"{os.cpu_count()} processors\n| what | measured | goal |\n|---|---|---|")
    for name in args.what or BENCHMARKS:
        for what, measured, goal in BENCHMARKS[name](args.folder, args.runs):
            print(f"| {what} | {measured} | {goal} |", flush=True)


Row = tuple[str, str, str]


def detect(folder: Path, runs: int) -> Iterator[Row]:
    """Videos: against decoding alone, and against the pipeline that others write."""
    from unmask import Analyzer

    analyzer = Analyzer()
    for height, goal in ((1080, "at most 1.25 x"), (720, "-")):
        clip = crowd(folder / f"{height}p.mp4", height, seconds=60)
        exact, decoding = in_turn(
            runs, lambda c=clip: analyzer.analyze(c), lambda c=clip: decode(c)
        )
        yield f"detect {height}p, 60 s, against decoding alone", ratio(exact, decoding), goal
    clip = folder / "1080p.mp4"
    for sampling, goal in (("fast", "at most 0.6 x"), ("keyframes", "-")):
        faster = Analyzer(sampling=sampling)
        timed, decoding = in_turn(runs, lambda f=faster: f.analyze(clip), lambda: decode(clip))
        yield f"the same, --sampling {sampling}", ratio(timed, decoding), goal
    short = crowd(folder / "1080p_short.mp4", 1080, seconds=10)
    usual = StraightforwardPipeline()
    ours, theirs, decoding = in_turn(
        max(1, runs // 3), lambda: analyzer.analyze(short), lambda: usual(short),
        lambda: decode(short),
    )  # fmt: skip
    yield "a straightforward pipeline, 10 s of 1080p, against detect", ratio(theirs, ours), "10 x"
    without = [[t - d for t, d in zip(times, decoding, strict=True)] for times in (theirs, ours)]
    yield "the same, decoding taken off both", ratio(*without), "20 x"


def faces(folder: Path, runs: int) -> Iterator[Row]:
    """RetinaFace at the working size, on one core."""
    from unmask.faces import FaceDetector
    from unmask.video import Video

    with Video(crowd(folder / "1080p_short.mp4", 1080, seconds=10)) as video:
        images = [frame.image for frame in video.sample(every=30)]
    detector = FaceDetector(threads=1)

    def all_images() -> None:
        for image in images:
            detector.detect(image)

    (times,) = in_turn(runs, all_images)
    each = 1000 * statistics.median(times) / len(images)
    yield "RetinaFace, one 1080p frame, one core", f"{each:.1f} ms", "under 8 ms"


def classifier(_: Path, runs: int) -> Iterator[Row]:
    """The classifier on one core, against ONNX Runtime in float32 on the same crops."""
    import onnxruntime

    from unmask.classifier import Classifier

    crops = np.stack([cv2.resize(image, (256, 256)) for image in people()[:8]])
    with tempfile.TemporaryDirectory() as temporary:
        run(["export", str(TRAINED), temporary])
        onnx = Path(temporary) / "xception_best.onnx"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    fed = crops.astype(np.float32) / 255
    ours = Classifier(threads=1)
    own, theirs = in_turn(runs, lambda: ours.logits(crops), lambda: session.run(None, {name: fed}))
    rate = len(crops) / statistics.median(own)
    yield (
        "classifier, one core, against ONNX Runtime fp32",
        f"{ratio(theirs, own)} ({rate:.1f} img/s)", "3.3 x",
    )  # fmt: skip


def startup(_: Path, runs: int) -> Iterator[Row]:
    """Whole processes."""
    image = next((SAMPLES / "people").glob("*.jpg"))
    for arguments, goal in ((["--help"], "under 0.3 s"), (["detect", str(image)], "under 1.2 s")):
        (times,) = in_turn(runs, lambda a=arguments: run(a))
        shown = "one image" if len(arguments) > 1 else arguments[0]
        yield f"unmask {arguments[0]}, {shown}, whole process", seconds(times), goal


def memory(folder: Path, runs: int) -> Iterator[Row]:
    """Peak memory does not grow with the length of a video."""
    short = crowd(folder / "720p_short.mp4", 720, seconds=10)
    long = repeated(short, folder / "720p_long.mp4", times=180)
    peaks = [peak_megabytes(clip) for clip in (short, long)]
    yield (
        "peak memory, 10 s and 30 min of 720p",
        f"{peaks[0]:.0f} and {peaks[1]:.0f} MB",
        ("under 700 MB, within 5 %"),
    )


def preprocess(folder: Path, runs: int) -> Iterator[Row]:
    """Two workers against one."""
    dataset = folder / "dataset"
    clip = crowd(folder / "720p_short.mp4", 720, seconds=10)
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
    yield "preprocess, 16 clips, one worker against two", ratio(one, two), "at least 1.8 x"


BENCHMARKS: dict[str, Callable[[Path, int], Iterator[Row]]] = {
    "detect": detect, "faces": faces, "classifier": classifier, "startup": startup,
    "memory": memory, "preprocess": preprocess,
}  # fmt: skip


class StraightforwardPipeline:
    """What most published scripts do: read all frames, MTCNN at full size, a face at a time."""

    def __init__(self) -> None:
        from mtcnn import MTCNN

        from unmask.training import xception

        self._mtcnn = MTCNN()
        self._model = xception.build(256)

    def __call__(self, clip: Path) -> None:
        capture, number = cv2.VideoCapture(str(clip)), 0
        while True:
            found, frame = capture.read()
            if not found:
                break
            if number % 15 == 0:
                image = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
                for face in self._mtcnn.detect_faces(image):
                    x, y, width, height = (max(0, v) for v in face["box"])
                    crop = cv2.resize(image[y : y + height, x : x + width], (256, 256))
                    self._model.predict(crop[None].astype(np.float32) / 255, verbose=0)
            number += 1
        capture.release()


def in_turn(runs: int, *things: Callable[[], object]) -> list[list[float]]:
    """Seconds that each thing takes in every run, one after the other, after one warm-up."""
    times: list[list[float]] = [[] for _ in things]
    for number in range(runs + 1):
        for thing, taken in zip(things, times, strict=True):
            start = time.perf_counter()
            thing()
            if number:
                taken.append(time.perf_counter() - start)
    return times


def ratio(times: list[float], to: list[float]) -> str:
    """The median of the runs' ratios, and their range."""
    each = [a / b for a, b in zip(times, to, strict=True)]
    return f"{statistics.median(each):.2f} x ({min(each):.2f} to {max(each):.2f})"


def seconds(times: list[float]) -> str:
    """The median and the range."""
    return f"{statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})"


def run(arguments: list[str]) -> None:
    """One whole process."""
    subprocess.run([*UNMASK, *arguments], check=True, stdout=subprocess.DEVNULL)


def decode(clip: Path) -> None:
    """All frames of a clip, decoded as fast as PyAV does on all processors, and dropped."""
    with av.open(str(clip)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for _ in container.decode(video=0):
            pass


def peak_megabytes(clip: Path) -> float:
    """Most memory that 'detect' of a clip ever held, its libraries included."""
    code = (
        "import sys, unmask; unmask.analyze(sys.argv[1]);"
        "print(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1])"
    )
    output = subprocess.check_output([sys.executable, "-c", code, str(clip)])
    return int(output) / 1024


def people() -> list[np.ndarray]:
    """The portraits of the samples, RGB."""
    paths = sorted((SAMPLES / "people").glob("*.jpg"))
    return [cv2.imread(str(path))[:, :, ::-1] for path in paths]


def crowd(path: Path, height: int, seconds: int) -> Path:
    """A clip (made once) of two faces that move over a background that moves as well, H.264."""
    if path.exists():
        return path
    width, rng = height * 16 // 9, np.random.default_rng(0)
    grain = rng.integers(0, 256, (height // 8, width // 4, 3), np.uint8)
    ground = cv2.GaussianBlur(cv2.resize(grain, (2 * width, height)), (0, 0), 2)
    shown = [cv2.resize(image, (height // 2, height // 2)) for image in people()[:2]]
    partial = path.with_suffix(".partial.mp4")
    with av.open(str(partial), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "veryfast", "crf": "20", "g": str(GOP), "bf": "2"}
        for number in range(seconds * FPS):
            left = 2 * number % width
            image = ground[:, left : left + width].copy()
            for place, face in enumerate(shown):
                angle = number / 40 + 2.5 * place
                x = (
                    int((width - height // 2) * (0.5 + 0.45 * np.sin(angle)) / 2)
                    + place * width // 2
                )
                x = min(x, width - height // 2)
                y = int(height // 4 * (1 + 0.8 * np.cos(1.3 * angle)))
                image[y : y + height // 2, x : x + height // 2] = face
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    partial.replace(path)
    return path


def repeated(clip: Path, path: Path, times: int) -> Path:
    """A clip one after the other many times, without encoding it again."""
    if path.exists():
        return path
    partial = path.with_suffix(".partial.mp4")
    with av.open(str(partial), "w") as output:
        stream, offset = None, 0
        for _ in range(times):
            with av.open(str(clip)) as source:
                video = source.streams.video[0]
                stream = stream or output.add_stream_from_template(video)
                for packet in source.demux(video):
                    if packet.dts is not None:
                        packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                        packet.stream = stream
                        output.mux(packet)
                offset += int(Fraction(video.frames, FPS) / video.time_base)
    partial.replace(path)
    return path


if __name__ == "__main__":
    main()
