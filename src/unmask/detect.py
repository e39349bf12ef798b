"""'unmask detect': every input judged once, and all that was asked for made of that."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from unmask.analyze import Analyzer, find_inputs
from unmask.console import JsonLines, Table
from unmask.errors import UsageError
from unmask.explain import Exhibits
from unmask.outputs import check_json
from unmask.robustness import check_sampling


def detect(
    paths: Sequence[Path],
    settings: SimpleNamespace,
    *,
    json: str | None = None,
    annotate: Path | None = None,
    html: Path | None = None,
    robustness: bool = False,
    command_line: str = "",
) -> list[str]:
    """Print a table, or write JSON lines to ``json`` ('-': standard output), and pages to ``html``.

    Then draw the annotated copies, as ``annotate``; returned is why some could not be made. Raises
    UsageError for outputs that cannot be, before anything is judged.
    """
    inputs = find_inputs(paths)
    if robustness:
        if not html:
            raise UsageError("--robustness is shown on the page: add --html FILE")
        check_sampling(settings.sampling)
    outputs, pages = [], []
    if annotate:
        from unmask.annotate import annotate_all, plan_outputs

        outputs = plan_outputs(inputs, annotate)
    if html:
        from unmask import html_report

        pages = html_report.plan_pages(inputs, html)
    check_json(json, [*inputs, *outputs, *pages])
    writer = JsonLines(json, len(inputs)) if json else Table(len(inputs))
    reports = []
    asked = settings.provenance or bool(pages)
    analyzer = Analyzer(**vars(settings) | {"provenance": asked})
    with writer:  # only now is an earlier report overwritten
        for number, path in enumerate(inputs):
            exhibits = Exhibits() if pages else None
            report = analyzer.analyze(path, on_progress=writer.progress, exhibits=exhibits)
            writer.add(report)
            if pages:
                altered = (
                    html_report.verdicts_when_altered(analyzer, report) if robustness else None
                )
                people = html_report.shown_people(report, exhibits, analyzer.settings)
                page = html_report.render(
                    report, people, card=analyzer.classifier.card, settings=analyzer.settings,
                    command_line=command_line, cuts=exhibits.cuts, altered=altered,
                )  # fmt: skip
                html_report.write_page(pages[number], page)
            if outputs:
                reports.append(report)
    return annotate_all(reports, outputs, settings.threads) if outputs else []
