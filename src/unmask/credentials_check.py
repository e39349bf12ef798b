"""Read and check a file's Content Credentials, and print them as JSON.

``python -m unmask.credentials_check FILE [TRUST_LIST]``: ``credentials`` starts it as a process of
its own, and says why.
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unmask.credentials import Credentials, Signer
from unmask.text import one_line

_MAX_MEMORY = 4_000_000_000  # bytes of address space of the checking process
_MAX_TEXT = 300  # characters of a shown value
_MAX_SENTENCES = 30

# What c2pa would fetch: manifests kept elsewhere, revocations, identities. The empty list of hosts
# forbids all of it once more.
_OFFLINE = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": True},
    "core": {"allowed_network_hosts": [], "decode_identity_assertions": False},
}

_SOURCES = {
    "trainedAlgorithmicMedia": "made by a generative model",
    "compositeWithTrainedAlgorithmicMedia": "made in part by a generative model",
    "algorithmicMedia": "made by an algorithm that was not trained on examples",
    "compositeSynthetic": "put together from parts, some of them synthetic",
    "algorithmicallyEnhanced": "enhanced by an algorithm",
    "dataDrivenMedia": "made from data",
    "digitalCreation": "made by a person with digital tools",
    "humanEdits": "edited by a person",
    "minorHumanEdits": "edited a little by a person",
    "composite": "put together from several sources",
    "compositeCapture": "put together from several recordings",
    "digitalCapture": "recorded by a camera",
    "computationalCapture": "recorded by a camera that computes its pictures",
    "screenCapture": "recorded from a screen",
    "virtualRecording": "recorded from a virtual scene or event",
    "negativeFilm": "scanned from film",
    "positiveFilm": "scanned from film",
    "print": "scanned from print",
}
"""Digital source types of the IPTC vocabulary that C2PA actions use, in words."""

_PROBLEMS = {
    "signingCredential.untrusted": "the signer's certificate is not on the trust list",
    "signingCredential.invalid": "the signer's certificate is not one that may sign media",
    "signingCredential.expired": "the signer's certificate was not valid at the time of signing, "
    "or no time stamp proves when that was",
    "signingCredential.ocsp.revoked": "the signer's certificate was revoked",
    "timeStamp.untrusted": "the authority that stamped the time is not on the trust list",
    "claimSignature.mismatch": "the signature does not fit the credentials",
    "claimSignature.missing": "the signature is missing",
    "assertion.hashedURI.mismatch": "a part of the credentials is not the one that was signed",
    "assertion.missing": "a part of the credentials is missing",
    "assertion.dataHash.mismatch": "the file is not the one that was signed",
    "assertion.bmffHash.mismatch": "the file is not the one that was signed",
    "assertion.boxesHash.mismatch": "the file is not the one that was signed",
    "claim.hardBindings.missing": "the credentials are not bound to this file",
}
"""Validation codes of the C2PA specification, in words; others are given in those of c2pa."""

_ALTERED = re.compile(r"\.mismatch$|^assertion\.missing$|^claimSignature\.missing$")


def _check(path: Path, trust_list: Path | None) -> Credentials:
    """Read and check the credentials of a file with c2pa."""
    import c2pa

    settings: dict[str, Any] = dict(_OFFLINE)
    if trust_list:
        settings["trust"] = {"trust_anchors": trust_list.read_text(encoding="utf-8")}
    else:  # else every file whose certificate has expired since would be invalid
        settings["verify"] = {**_OFFLINE["verify"], "verify_timestamp_trust": False}
    context = c2pa.Context(c2pa.Settings.from_dict(settings))
    errors = c2pa.C2paError
    try:
        with path.open("rb") as file, c2pa.Reader(None, file, context=context) as reader:
            return _as_credentials(
                json.loads(reader.json()), json.loads(reader.crjson()), trust_list
            )
    except errors.ManifestNotFound:
        return Credentials("none", "The file has no Content Credentials; most files have none.")
    except errors as error:
        problem = str(error)
        if problem.startswith("Remote:"):
            reason = "Not checked: the Content Credentials are on a server, and nothing is fetched."
            return Credentials("not_checked", reason, problems=(_clean(problem),))
        # These are about the file; who broke it to hide credentials could have stripped them.
        if problem.startswith(("NotSupported:", "Io:", "Other: asset could not be parsed")):
            return Credentials(
                "none",
                "No Content Credentials were found: the checker cannot read files of this kind, or "
                "this one is damaged.",
            )
        return Credentials(
            "invalid",
            "There are Content Credentials, but they cannot be read: they are damaged or forged.",
            problems=(_clean(problem),),
        )


def _as_credentials(store: dict, details: dict, trust_list: Path | None) -> Credentials:
    """What c2pa says, of which only the outermost form can be relied on: the file wrote the rest.

    ``store`` is c2pa's own form and ``details`` the crJSON, which has the names in certificates.
    """
    manifests = _dict(store.get("manifests"))
    active = _dict(manifests.get(store.get("active_manifest")))
    results = _dict(store.get("validation_results"))
    checks = _dict(results.get("activeManifest"))
    failures = [_dict(f) for f in _list(checks.get("failure"))]
    state = {"Trusted": "valid", "Valid": "untrusted"}.get(store.get("validation_state"))
    if state is None:
        altered = any(_ALTERED.search(str(failure.get("code"))) for failure in failures)
        state = "altered" if altered else "invalid"
    for delta in _list(results.get("ingredientDeltas")):
        failures += _list(_dict(_dict(delta).get("validationDeltas")).get("failure"))
    # c2pa lets it pass, and still gives the time.
    remarks = [_dict(remark) for remark in _list(checks.get("informational"))]
    failures += [remark for remark in remarks if remark.get("code") == "timeStamp.untrusted"]
    if trust_list is None:  # then the reason says so
        failures = [f for f in failures if not str(_dict(f).get("code")).endswith(".untrusted")]
    others = [_dict(m) for m in manifests.values() if m is not active]
    actions = [sentence for manifest in (active, *others) for sentence in _actions(manifest)]
    return Credentials(
        state,
        _reason(state, trust_list is not None),
        _signer(_dict(active.get("signature_info")), details),
        _tool(active),
        _distinct(actions),
        _distinct(_problem(_dict(failure)) for failure in failures),
    )


def _reason(state: str, listed: bool) -> str:
    if state == "untrusted" and not listed:
        return (
            "The file is as it was signed, but who signed it, and when, was not checked: no trust "
            "list was given."
        )
    return {
        "valid": "The file is as it was signed, by a signer on your trust list.",
        "untrusted": "The file is as it was signed, but its signer is not on your trust list: "
        "anybody may have signed it.",
        "altered": "The file or its Content Credentials were changed after they were signed.",
        "invalid": "There are Content Credentials, but they do not hold; see the problems.",
    }[state]


def _signer(signature: dict, details: dict) -> Signer:
    manifests = _list(details.get("manifests")) or [{}]  # the active one comes first
    certificate = _dict(_dict(_dict(manifests[0]).get("signature")).get("certificateInfo"))
    time = signature.get("time")
    subject, issuer = (_owner(_dict(certificate.get(which))) for which in ("subject", "issuer"))
    return Signer(subject, issuer, _clean(time) if time else None)


def _owner(names: dict) -> str | None:
    """A certificate's distinguished name for people: common name and organisation."""
    parts = [str(names[key]) for key in ("CN", "O") if names.get(key)]
    return _clean(", ".join(parts)) if parts else None


def _tool(manifest: dict) -> str | None:
    """The program that says it wrote a manifest."""
    for info in _list(manifest.get("claim_generator_info")):
        if name := _program(info):
            return name
    name = manifest.get("claim_generator")
    return _clean(name) if name else None


def _program(info: Any) -> str | None:
    """A program's name and version, which come as a text or as an object."""
    if isinstance(info, dict):
        info = " ".join(str(info[key]) for key in ("name", "version") if info.get(key))
    return _clean(info) if info else None


def _actions(manifest: dict) -> Iterator[str]:
    tool = _tool(manifest) or "an unnamed tool"
    for assertion in map(_dict, _list(manifest.get("assertions"))):
        if not str(assertion.get("label")).startswith("c2pa.actions"):
            continue
        for action in map(_dict, _list(_dict(assertion.get("data")).get("actions"))):
            what = str(action.get("action")).removeprefix("c2pa.").replace("_", " ")
            source = str(action.get("digitalSourceType") or "").rpartition("/")[2]
            sentence = f"{_program(action.get('softwareAgent')) or tool}: {what}"
            if source:
                words = _SOURCES.get(source)
                sentence += f"; says that it was {words}" if words else f" ({source})"
            yield _clean(sentence)


def _problem(failure: dict) -> str:
    code = str(failure.get("code"))
    return _PROBLEMS.get(code) or _clean(f"{failure.get('explanation') or 'failed'} ({code})")


def _dict(value: Any) -> dict:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list:
    return value if isinstance(value, list) else []


def _distinct(sentences: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(sentences))[:_MAX_SENTENCES]


def _clean(value: Any) -> str:
    return one_line(value, _MAX_TEXT)


def _limit_memory() -> None:
    """Let this process fail rather than take the machine's memory, where the system has limits."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY, _MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    _limit_memory()
    checked = _check(Path(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2:] else None)
    print(json.dumps(asdict(checked)))
