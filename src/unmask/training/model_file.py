"""Networks on disk: where their weights come from, and the ``.h5`` that they become."""

from pathlib import Path
from tempfile import TemporaryDirectory

import h5py

from unmask.errors import ModelError
from unmask.outputs import HALF_WRITTEN
from unmask.training.xception import LAST_BLOCK, head_of, in_float32, take_layers

# isort: split
import keras

_SUFFIXES = (".h5", ".keras")


def initialise(model: keras.Model, init: str) -> None:
    """Start from ``imagenet`` (Keras downloads it), ``random``, or an ``.h5`` file.

    That is an earlier model, of which only the layers below are taken where it has another head, or
    Keras's own Xception without its top. Raises ModelError when the weights cannot be had or do not
    fit.
    """
    if init == "random":
        return
    if init != "imagenet":
        source = _start(Path(init))
        if len(source.get_weights()) == len(model.get_weights()):
            model.set_weights(source.get_weights())
            return
    else:
        try:
            source = keras.applications.Xception(include_top=False, weights="imagenet")
        except Exception as error:  # Keras raises a plain Exception when the download fails
            raise ModelError(
                f"the ImageNet weights could not be downloaded ({error}): get on the internet "
                "once, or fetch xception_weights_tf_dim_ordering_tf_kernels_notop.h5 from Keras by "
                "hand and give it with --init, as any model that you have"
            ) from None
    last = LAST_BLOCK[head_of(model)]
    if last not in {layer.name for layer in source.layers}:
        raise ModelError(f"{init} ends below {last}: it can start only a model with its own head")
    take_layers(model, source)


def _start(path: Path) -> keras.Model:
    """An earlier model, or Keras's Xception of an ``.h5`` with or without its layers' description.

    Raises ModelError when it is neither.
    """
    try:
        return load(path)
    except ModelError as error:
        try:
            return keras.applications.Xception(include_top=False, weights=str(path))
        except (OSError, ValueError, TypeError, KeyError):
            raise error from None


def load(path: Path) -> keras.Model:
    """A saved model. Raises ModelError when the file is missing or is not this network."""
    if not path.is_file():
        raise ModelError(f"no model at {path}: train one with 'unmask train'")
    if path.suffix.lower() not in _SUFFIXES:
        raise ModelError(f"{path.name} is no trained model: give the .h5 that 'unmask train' wrote")
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{path.name} is no Keras model that can be loaded: {error}") from None
    try:
        head_of(model)
    except ModelError as error:
        raise ModelError(f"{path.name}: {error}") from None
    return model


def save(model: keras.Model, path: Path, size: int = 256) -> None:
    """Write an ``.h5`` that any Keras 3 loads: float32, without optimizer state, in one step."""
    plain = in_float32(model, size)
    with TemporaryDirectory(dir=path.parent, suffix=HALF_WRITTEN) as folder:
        large, packed = Path(folder) / "large.h5", Path(folder) / path.name
        plain.save(large)
        with h5py.File(large) as source, h5py.File(packed, "w") as target:
            _pack(source, target)
        packed.replace(path)


def _pack(source: h5py.Group, target: h5py.Group) -> None:
    """Copy with compression, which takes a tenth off and which HDF5 undoes by itself."""
    target.attrs.update(source.attrs)
    for name, item in source.items():
        if isinstance(item, h5py.Group):
            _pack(item, target.create_group(name))
        else:
            how = {"compression": "gzip", "shuffle": True} if item.size > 1024 else {}
            target.create_dataset(name, data=item[()], **how).attrs.update(item.attrs)
