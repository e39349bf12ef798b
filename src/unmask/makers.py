"""Names of generators, editors and converters that a file's tags and credentials may carry."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_GENERATOR, _SWAPPER = "a generator of synthetic media", "a tool that swaps faces"
_AVATARS, _EDITOR = "a generator of talking avatars", "a video editor: editing is no forgery"
_RETOUCHER = "an image editor: editing is no forgery"
_REENCODED = "a library that nearly every program and website writes files with: ordinary"
_CONVERTER = "a converter: ordinary re-encoding"


@dataclass(frozen=True)
class _Maker:
    """What a name in a tag stands for; ``also`` are other words that give it away.

    An ``everyday`` word counts in tags for software only: a title may well have a runway in it.
    """

    what: str
    also: tuple[str, ...] = ()
    everyday: bool = False


_MAKERS = {
    "DeepFaceLab": _Maker(_SWAPPER),
    "FaceSwap": _Maker(_SWAPPER, ("faceswap.dev",), everyday=True),
    "FaceFusion": _Maker(_SWAPPER),
    "Roop": _Maker(_SWAPPER, everyday=True),
    "Deep-Live-Cam": _Maker(_SWAPPER),
    "Reface": _Maker(_SWAPPER, everyday=True),
    "HeyGen": _Maker(_AVATARS),
    "Synthesia": _Maker(_AVATARS, everyday=True),
    "D-ID": _Maker(_AVATARS, everyday=True),
    "Hedra": _Maker(_AVATARS, everyday=True),
    "Runway": _Maker(_GENERATOR, ("RunwayML",), everyday=True),
    "Sora": _Maker(_GENERATOR, everyday=True),
    "OpenAI": _Maker(_GENERATOR, ("DALL-E", "DALL·E", "ChatGPT")),
    "Google generative AI": _Maker(
        _GENERATOR, ("Made with Google AI", "Google Generative AI", "Google C2PA Core Generator")
    ),
    "Veo": _Maker(_GENERATOR, everyday=True),
    "Kling": _Maker(_GENERATOR, ("KlingAI", "Kling AI"), everyday=True),
    "Hailuo": _Maker(_GENERATOR),
    "Luma Dream Machine": _Maker(_GENERATOR, ("Dream Machine",)),
    "Pika": _Maker(_GENERATOR, everyday=True),
    "Midjourney": _Maker(_GENERATOR),
    "Adobe Firefly": _Maker(_GENERATOR, ("Adobe_Firefly",)),
    "Stable Diffusion": _Maker(_GENERATOR, ("negative prompt", "AUTOMATIC1111")),
    "ComfyUI": _Maker(_GENERATOR, ("KSampler",)),
    "InvokeAI": _Maker(_GENERATOR, ("invokeai_metadata",)),
    "AIGC": _Maker("the label that Chinese law requires on AI-generated content"),
    "trainedAlgorithmicMedia": _Maker("the IPTC's word for media made by a generative model"),
    "CapCut": _Maker(_EDITOR),
    "Adobe Premiere": _Maker(_EDITOR),
    "Adobe After Effects": _Maker(_EDITOR),
    "Adobe Media Encoder": _Maker(_CONVERTER),
    "Final Cut": _Maker(_EDITOR, everyday=True),
    "iMovie": _Maker(_EDITOR),
    "DaVinci Resolve": _Maker(_EDITOR, ("Blackmagic Design",)),
    "Avid": _Maker(_EDITOR, ("Media Composer",), everyday=True),
    "VEGAS": _Maker(_EDITOR, ("Vegas Pro",), everyday=True),
    "Filmora": _Maker(_EDITOR),
    "KineMaster": _Maker(_EDITOR),
    "Kdenlive": _Maker(_EDITOR),
    "Shotcut": _Maker(_EDITOR),
    "Photoshop": _Maker(_RETOUCHER),
    "Lightroom": _Maker(_RETOUCHER),
    "GIMP": _Maker(_RETOUCHER, everyday=True),
    "Snapseed": _Maker(_RETOUCHER),
    "FaceApp": _Maker("an app that changes faces"),
    "HandBrake": _Maker(_CONVERTER),
    "FFmpeg": _Maker(_REENCODED, ("Lavf", "Lavc")),
}
"""Names that tags and credentials are searched for, each with what it stands for."""


def named(texts: Iterable[tuple[str, str, bool]]) -> Iterator[str]:
    """A sentence for every known name, from where it stands first.

    ``texts`` are how such a sentence begins, a text, and whether it names software.
    """
    texts = tuple(texts)
    for name, maker in _MAKERS.items():
        words = "|".join(map(re.escape, (name, *maker.also)))
        pattern = re.compile(rf"(?<![^\W_\d])({words})(?![^\W_\d])", re.IGNORECASE)
        for where, text, software in texts:
            if (software or not maker.everyday) and (found := pattern.search(text)):
                word = "" if found[0].lower() == name.lower() else f" ('{found[0]}')"
                yield f"{where} {name}{word}, {maker.what}."
                break
