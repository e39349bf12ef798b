"""What happens to pictures on their way to us: rescaling, compression, noise, colour changes.

A real crop and its fake go through the very same chain, so that only the forgery tells them
apart; their sharpness is mixed, so that it does not. Compression is real: crops are encoded as
short moving clips by H.264 or VP9.
"""

import io

import av
import cv2
import numpy as np

from unmask.faces import MARGIN

_CLIP_FRAMES = 4
# libx265 is left out: it corrupted memory, and its threads wait for each other for ever once in
# some thousand clips.
_BLOCK = 64  # pixels: encoders are given whole ones
_VP9_CRF = 14  # added to H.264's for about the same look; VP9's own scale goes up to 63


def degrade(
    crops: list[np.ndarray],
    rng: np.random.Generator,
    face_size: float,
    strength: float = 1.0,
) -> list[np.ndarray]:
    """Put square RGB ``uint8`` crops of one size through one random chain of damage.

    ``face_size`` is the shorter side of the smallest face among them, in source pixels: all are
    brought down to about what its crop really has, and their sharpness is mixed
    (``mix_sharpness``).
    ``strength`` in [0, 1] scales how likely and how bad all the rest is. Returns crops of the
    same size.
    """
    size = crops[0].shape[0]
    side = native = float(np.clip(face_size * MARGIN, 48, size))
    if rng.random() < 0.6 * strength:
        side = np.exp(rng.uniform(np.log(native * (1 - 0.55 * strength)), np.log(native)))
    side = max(48, int(side))
    crops = [cv2.resize(c, (side, side), interpolation=cv2.INTER_AREA) for c in crops]
    crops = mix_sharpness(crops, rng)
    if rng.random() < 0.6 * strength:
        crops = _recolour(crops, rng, strength)
    if rng.random() < 0.2 * strength:
        spread = rng.uniform(0.3, 0.3 + 0.9 * strength)
        crops = [cv2.GaussianBlur(c, (0, 0), spread) for c in crops]
    if rng.random() < 0.2 * strength:
        noise = rng.normal(0, rng.uniform(1, 1 + 7 * strength), crops[0].shape)
        crops = [np.clip(c + noise, 0, 255).astype(np.uint8) for c in crops]
    compressed = (1 + strength) / 2  # what has seen no compression at all is rare anyway
    times = rng.choice(3, p=(1 - 0.8 * compressed, 0.6 * compressed, 0.2 * compressed))
    for _ in range(times):
        crops = _compress(crops, rng, strength)
    up = (cv2.INTER_LINEAR, cv2.INTER_CUBIC)[rng.integers(2)]
    crops = [cv2.resize(c, (size, size), interpolation=up) for c in crops]
    if rng.random() < 0.1:
        crops = _cover(crops, rng)
    return crops


def mix_sharpness(crops: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Make crops of one size equally soft or equally sharp, blur some of them, or do nothing.

    Sharpness alone must not tell real from fake, in either direction: generators paint softer
    than cameras record, but always softening the real crop teaches that soft is real (measured).
    """
    how = rng.random()
    if how < 0.3:
        goal = min(map(_detail, crops))
        return [_soften(crop, goal) for crop in crops]
    if how < 0.5:
        goal = max(map(_detail, crops))
        return [_sharpen(crop, goal) for crop in crops]
    if how < 0.7:
        return [
            cv2.GaussianBlur(crop, (0, 0), rng.uniform(0.3, 1.2)) if rng.random() < 0.5 else crop
            for crop in crops
        ]
    return crops


def _soften(crop: np.ndarray, goal: float) -> np.ndarray:
    """The crop blurred until it has about as little fine detail as ``goal``."""
    if _detail(crop) <= 1.03 * goal:
        return crop
    low, high = 0.0, 4.0  # the Gaussian's sigma in pixels, halved in on
    for _ in range(6):
        spread = (low + high) / 2
        soft = cv2.GaussianBlur(crop, (0, 0), spread)
        low, high = (spread, high) if _detail(soft) > goal else (low, spread)
    return soft


def _sharpen(crop: np.ndarray, goal: float) -> np.ndarray:
    """The crop with its fine detail amplified, by 2 at most, until it has about ``goal`` of it."""
    pixels = crop.astype(np.float32)
    fine = pixels - cv2.GaussianBlur(pixels, (0, 0), 1.2)
    sharp, amount = crop, 0.0
    while _detail(sharp) < 0.97 * goal and amount < 2:  # more than that would look unreal
        amount += 0.25
        sharp = np.clip(pixels + amount * fine, 0, 255).round().astype(np.uint8)
    return sharp


def _detail(crop: np.ndarray) -> float:
    """How much the finest detail of a crop varies, in grey levels."""
    return float(cv2.Laplacian(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.CV_16S).std())


def _compress(
    crops: list[np.ndarray], rng: np.random.Generator, strength: float
) -> list[np.ndarray]:
    kind = rng.choice(("jpeg", "libx264", "libvpx-vp9"), p=(0.35, 0.55, 0.1))
    if kind == "jpeg":
        quality = int(rng.uniform(100 - 70 * strength, 100))
        return [jpeg(crop, quality) for crop in crops]
    crf = int(rng.triangular(17, 19 + 4 * strength, 24 + 16 * strength))
    motion = rng.uniform(-2.5, 2.5, 2)
    keep = int(rng.integers(_CLIP_FRAMES))
    return [encode(crop, str(kind), crf, motion, keep) for crop in crops]


def jpeg(crop: np.ndarray, quality: int) -> np.ndarray:
    """The crop after JPEG at ``quality`` (1 to 100)."""
    _, data = cv2.imencode(".jpg", crop[:, :, ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1]


def encode(crop: np.ndarray, codec: str, crf: int, motion: np.ndarray, keep: int) -> np.ndarray:
    """Frame ``keep`` of a clip of the crop moving by ``motion`` pixels a frame, encoded at ``crf``.

    ``codec`` is an FFmpeg encoder: ``libx264`` or ``libvpx-vp9``; ``crf`` is on H.264's scale.
    """
    height, width = crop.shape[:2]
    whole = cv2.copyMakeBorder(crop, 0, -height % _BLOCK, 0, -width % _BLOCK, cv2.BORDER_REPLICATE)
    buffer = io.BytesIO()
    # Without the last, x264's macroblock tree codes otherwise now and then (seen with AVX-512). It
    # is not turned off, as in robustness: platforms have it, and training was measured with it.
    options = {"crf": str(crf), "preset": "veryfast", "x264-params": "cpu-independent=1"}
    if codec == "libvpx-vp9":
        options = {"crf": str(crf + _VP9_CRF), "b": "0", "deadline": "realtime", "cpu-used": "8",
                   "lag-in-frames": "0"}  # fmt: skip
    with av.open(buffer, "w", format="matroska") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = whole.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for number in range(_CLIP_FRAMES):
            # The kept frame shows the crop unmoved, so that no pixel is interpolated twice.
            x, y = np.round(motion * (number - keep)).astype(int)
            moved = np.roll(whole, (y, x), (0, 1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(moved, format="rgb24")))
        container.mux(stream.encode())
    buffer.seek(0)
    with av.open(buffer) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number == keep:
                return frame.to_ndarray(format="rgb24")[:height, :width]
    return crop


def as_a_clip(
    crop: np.ndarray,
    face_size: float,
    rng: np.random.Generator,
    scale: float | None = None,
    crf: int | None = None,
) -> np.ndarray:
    """The crop as it would be cut from its clip once that was scaled and encoded as H.264.

    ``face_size`` is the shorter side of the face in the clip, in pixels: the crop gets no more
    pixels than it had there. By default ``scale`` is drawn from 0.4 to 1 and ``crf`` from 20 to 38.
    """
    size = len(crop)
    scale = scale or np.exp(rng.uniform(np.log(0.4), 0))
    side = int(np.clip(MARGIN * face_size * scale, 24, size))
    small = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
    crf = crf or int(rng.integers(20, 39))
    small = encode(
        small, "libx264", crf, rng.uniform(-2.5, 2.5, 2), int(rng.integers(_CLIP_FRAMES))
    )
    return cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR)


def _recolour(
    crops: list[np.ndarray], rng: np.random.Generator, strength: float
) -> list[np.ndarray]:
    """Brightness, contrast, gamma, saturation and colour cast; sometimes no colour at all."""
    gain, offset = 1 + 0.2 * strength * rng.uniform(-1, 1), 20 * strength * rng.uniform(-1, 1)
    cast = 10 * strength * rng.uniform(-1, 1, 3).astype(np.float32)
    gamma = np.exp(0.22 * strength * rng.uniform(-1, 1))
    saturation = 0.0 if rng.random() < 0.12 else 1 + 0.4 * strength * rng.uniform(-1, 1)
    result = []
    for crop in crops:
        pixels = crop.astype(np.float32)
        grey = pixels @ np.array((0.299, 0.587, 0.114), np.float32)
        pixels = grey[..., None] + (pixels - grey[..., None]) * saturation
        pixels = np.clip(pixels * gain + offset + cast, 0, 255)
        result.append((255 * (pixels / 255) ** gamma).astype(np.uint8))
    return result


def _cover(crops: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Hide a random rectangle behind one colour, as hands, microphones and captions do."""
    size = crops[0].shape[0]
    width, height = rng.integers(size // 8, size // 3, 2)
    x, y = rng.integers(0, size - width), rng.integers(0, size - height)
    colour = rng.integers(0, 256, 3).astype(np.uint8)
    crops = [crop.copy() for crop in crops]
    for crop in crops:
        crop[y : y + height, x : x + width] = colour
    return crops
