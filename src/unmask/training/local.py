"""Teach the branch of the head 'local' what a local forgery looks like; nothing else learns.

What the head 'moments' finds carries over to other generators, but it is texture everywhere: its
evidence does not show a change of a part. Training its layers for that makes it worse on generators
it has not seen (measured: docs/model.md), so they stay as they are, and three things are asked of
what the branch adds: that it is nothing on crops that were not synthesised, that it lifts a
synthesised fake above the real crop it was made of, and that it lies where that was changed.
"""

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from unmask.runtime import Network
from unmask.training.batches import Batch
from unmask.training.checkpoint import load_checkpoint, save_checkpoint
from unmask.training.export import compiled
from unmask.training.schedule import warm_cosine
from unmask.training.xception import BRANCHES_AT, LOCAL, with_evidence

# isort: split
import keras
import tensorflow as tf

SHARPNESS = 2.0
"""Ridge regression answers -1 and 1: times this they are about logits, as the branch's are."""

SYNTHESISED = 0.6
"""The share of fakes, at least, that is to be synthesised where the branch learns."""

_NOTHING, _BESIDE, _PLACE = 1.0, 1.0, 1.5  # weights of the three demands
_CONTRAST = 8.0  # by how much more, about, evidence is to be where a change is
_LOCAL = (0.01, 0.7)  # a change of so large a share of the crop has a place
_SAVE_SECONDS = 300


def below(model: keras.Model) -> Network:
    """Of a network with the head 'moments': crops -> what the branch sees, and its evidence."""
    seen = model.get_layer(BRANCHES_AT).input
    return compiled(keras.Model(model.input, [seen, with_evidence(model).outputs[2]]))


def learn(
    whole: keras.Model, see: Network, batches: Iterable[Batch], steps: int, rate: float,
    average: float, stopped: Callable[[], bool], checkpoint: Path,
) -> None:  # fmt: skip
    """Let the branch of ``whole`` learn from ``batches``, the first after ``step_of(checkpoint)``.

    ``see`` is ``below`` of the network that it is added to. The rate rises to ``rate`` and falls
    to zero; ``average`` is the decay of the running average of the weights, which they become in
    the end (0: none). Raises KeyboardInterrupt, with all that was learned in ``checkpoint``, once
    ``stopped()``.
    """
    branch = keras.Model(whole.get_layer(BRANCHES_AT).input, whole.get_layer(LOCAL).output)
    variables = branch.trainable_variables
    optimizer = keras.optimizers.AdamW(
        rate, weight_decay=0.0, beta_2=0.99, clipnorm=1.0,
        use_ema=average > 0, ema_momentum=average,
    )  # fmt: skip
    optimizer.build(variables)
    learned = [*variables, *optimizer.variables]
    step = 0
    if checkpoint.is_file():
        state, saved = load_checkpoint(checkpoint)
        step = state["step"]
        for variable, value in zip(learned, saved["learned"], strict=True):
            variable.assign(value)

    @tf.function(autograph=False)
    def follow(seen: tf.Tensor, before: tf.Tensor, changed: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = _loss(before, _coarser(branch(seen), before.shape[1]), changed)
        return tape.gradient(loss, [v.value for v in variables])

    saved_at = time.monotonic()
    for batch in batches:
        step += 1
        found = see(batch.crops)
        optimizer.learning_rate = warm_cosine(rate, step / steps)
        optimizer.apply(follow(found[0], found[1][..., 0], batch.changed), variables)
        is_over = stopped()
        if is_over or step == steps or time.monotonic() - saved_at > _SAVE_SECONDS:
            save_checkpoint(checkpoint, {"step": step}, learned=learned)
            saved_at = time.monotonic()
        if is_over:
            raise KeyboardInterrupt
    if average:
        optimizer.finalize_variable_values(variables)


def step_of(checkpoint: Path) -> int:
    """How many steps a checkpoint has behind it; 0 without one."""
    return load_checkpoint(checkpoint)[0]["step"] if checkpoint.is_file() else 0


def _coarser(cells: tf.Tensor, side: int) -> tf.Tensor:
    """Cells (n, h, w, 1) averaged to (n, side, side), as with_evidence does."""
    finer = cells.shape[1] // side
    return tf.nn.avg_pool2d(cells, finer, finer, "VALID")[..., 0]


def _loss(before: tf.Tensor, added: tf.Tensor, changed: tf.Tensor) -> tf.Tensor:
    """The three demands on evidence (n, h, w), for a batch in which real and fake take turns."""
    synthesised = tf.cast(tf.reduce_max(changed, (1, 2)) > 0, tf.float32)
    evidence = SHARPNESS * before + added
    logits = tf.reduce_mean(evidence, (1, 2))
    gaps = logits[1::2] - logits[0::2]
    said = tf.reduce_mean(added, (1, 2))
    return (
        _NOTHING * _mean(said**2, 1 - synthesised)
        + _BESIDE * _mean(tf.nn.softplus(-gaps), synthesised[1::2])
        + _PLACE * _place_loss(evidence, changed)
    )


def _place_loss(evidence: tf.Tensor, changed: tf.Tensor) -> tf.Tensor:
    """How little more evidence lies in what was changed than beside it, over local changes."""
    changed = tf.image.resize(changed[..., None], evidence.shape[1:], "area")[..., 0]
    share = tf.reduce_mean(changed, (1, 2))
    local = tf.cast((share > _LOCAL[0]) & (share < _LOCAL[1]), tf.float32)
    inside = tf.math.divide_no_nan(tf.reduce_mean(evidence * changed, (1, 2)), share)
    outside = tf.math.divide_no_nan(tf.reduce_mean(evidence * (1 - changed), (1, 2)), 1 - share)
    return _mean(tf.nn.softplus((outside - inside) / _CONTRAST), local)


def _mean(values: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """The weighted mean; 0 where nothing has weight."""
    return tf.math.divide_no_nan(tf.reduce_sum(values * weights), tf.reduce_sum(weights))
