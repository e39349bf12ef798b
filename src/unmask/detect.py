"""'unmask detect': every input judged once, and all that was asked for made of that."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

from unmask.analyzer import Analyzer
from unmask.console import JsonLines, Table
from unmask.errors import UnmaskError, UsageError
from unmask.explain import Exhibits
from unmask.inputs import find_inputs
from unmask.outputs import check_json, check_pages, is_page, write_whole
from unmask.report import Report
from unmask.resume import kept_reports
from unmask.robustness import AlteredVerdict, check_sampling, verdicts_when_altered


def detect(
    paths: Sequence[Path],
    settings: SimpleNamespace,
    *,
    json: str | None = None,
    annotate: Path | None = None,
    html: Path | None = None,
    robustness: bool = False,
    resume: bool = False,
    command_line: str = "",
) -> list[UnmaskError]:
    """Print a table, or write JSON lines to ``json`` ('-': standard output).

    Pages go to ``html`` and copies to ``annotate``, each as soon as its input is judged. With
    ``resume`` what an earlier run left in ``json`` is not judged again. Returned is which folders
    could not be read and which copies not made. Raises UsageError for outputs that cannot be,
    before anything is judged.
    """
    failures: list[UnmaskError] = []
    inputs = find_inputs(paths, failures.append)
    if robustness:
        if not html:
            raise UsageError("--robustness is shown on the page: add --html FILE")
        check_sampling(settings.sampling)
    is_file = json not in (None, "-") and (Path(json).is_file() or not Path(json).exists())
    if resume and not is_file:
        raise UsageError("--resume goes on with a file of reports: add --json FILE")
    outputs, pages = _plan(inputs, json, annotate, html)
    asked = settings.provenance or bool(pages)
    analyzer = Analyzer(**vars(settings) | {"provenance": asked})
    held = nullcontext({})
    if is_file:
        held = kept_reports(
            json, analyzer, inputs, resume, robustness,
            lambda number, kept: not pages or is_page(pages[number], kept.sha256),
        )  # fmt: skip
    writer = JsonLines(json, len(inputs), resume) if json else Table(len(inputs))
    with held as kept, writer:  # only now is an earlier report overwritten
        for number, path in enumerate(inputs):
            if path in kept:
                writer.keep()
                if outputs and not outputs[number].exists():
                    report = kept[path].report()
                    failures += _annotate(path, report, outputs[number], writer, settings.threads)
                continue
            exhibits = Exhibits() if pages else None
            report = analyzer.analyze(path, on_progress=writer.progress, exhibits=exhibits)
            writer.add(report)
            if pages:
                altered = None
                if robustness:
                    altered = verdicts_when_altered(analyzer, report, writer.afterwards("altering"))
                _write_page(pages[number], report, exhibits, analyzer, altered, command_line)
            if outputs:
                failures += _annotate(path, report, outputs[number], writer, settings.threads)
    return failures


def _plan(
    inputs: Sequence[Path], json: str | None, annotate: Path | None, html: Path | None
) -> tuple[list[Path], list[Path]]:
    """Where the annotated copies and the pages go, if they are asked for."""
    outputs, pages = [], []
    if annotate:
        from unmask.annotate import plan_outputs

        outputs = plan_outputs(inputs, annotate)
    if html:
        from unmask.html_report import plan_pages

        pages = plan_pages(inputs, html)
        check_pages(pages)
    check_json(json, [*inputs, *outputs, *pages])
    return outputs, pages


def _write_page(
    page: Path, report: Report, exhibits: Exhibits, analyzer: Analyzer,
    altered: list[AlteredVerdict] | str | None, command_line: str,
) -> None:  # fmt: skip
    from unmask import html_report

    people = html_report.shown_people(report, exhibits, analyzer.settings)
    html = html_report.render(
        report, people, card=analyzer.classifier.card, settings=analyzer.settings,
        command_line=command_line, cuts=exhibits.cuts, altered=altered,
    )  # fmt: skip
    write_whole(page, html)


def _annotate(
    path: Path, report: Report, output: Path, writer: JsonLines | Table, threads: int
) -> list[UnmaskError]:
    """Draw the annotated copy; returned is why there is none, if so."""
    from unmask.annotate import annotate

    try:
        annotate(path, report, output, writer.afterwards("annotating"), threads)
    except UnmaskError as error:
        return [error]
    return []
