from __future__ import annotations

import csv
import dataclasses
import html
import io
import json
import math
import re
import warnings
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import font_manager
from plotly.offline import get_plotlyjs

from orchestrator import report
from orchestrator.analysis import compare, results, wording
from orchestrator.analysis.parity import NamedDifference, Parity
from orchestrator.report import columns, gate, markdown, tables
from orchestrator.store.records import ExperimentRecords
from tests.conftest import ROOT
from tests.unit.synthetic import LABELS, attempt, make_records


@pytest.fixture
def records(tmp_path: Path) -> ExperimentRecords:
    made = make_records(tmp_path / "x", {"keras": [0.5, 0.6, 0.7], "torch": [0.6, 0.65, 0.8]})
    made.keep_disagreements(
        {
            "indices": np.array([60, 170]),
            "labels": np.array([0, 1]),
            "images": np.zeros((2, 4, 4, 1), np.uint8),
            "test_labels": LABELS,
        }
    )
    return made


def test_wrong_and_disputed_images_are_listed_with_their_files(records: ExperimentRecords) -> None:
    report.write(records)
    rows = [*csv.DictReader(io.StringIO(read(records, "wrong_images.csv")))]
    assert [int(row["image"]) for row in rows] == list(range(500, 1000)), (
        "the first half is right in all runs"
    )
    assert {row["file"] for row in rows} == {""}
    records.keep_test_names([f"photos/{place}.png" for place in range(1000)])
    report.write(records)
    rows = [*csv.DictReader(io.StringIO(read(records, "wrong_images.csv")))]
    by_image = {int(row["image"]): row for row in rows}
    assert by_image[550]["file"] == "photos/550.png" and by_image[550]["class"] == "dog"
    assert (by_image[550]["keras_wrong"], by_image[550]["torch_wrong"]) == ("1", "0")
    assert (by_image[620]["keras_wrong"], by_image[620]["torch_wrong"]) == ("2", "1")
    assert (
        by_image[620]["disputed"] == "yes" and by_image[620]["torch_predicted"] == "<script>alert(1)</script>"
    )
    assert by_image[900]["disputed"] == "no"


def read(records: ExperimentRecords, name: str) -> str:
    return (Path(records.storage.url) / "report" / name).read_text()


class Page(HTMLParser):
    """Collects headings, references and picture texts; complains of nothing closed wrongly."""

    VOID = ("meta", "img", "br", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.references: list[str] = []
        self.pictures: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.references += [attributes[name] or "" for name in ("src", "href") if name in attributes]
        if tag == "img":
            self.pictures.append(attributes.get("alt") or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)


def test_the_page_is_whole_self_contained_and_escaped(records: ExperimentRecords) -> None:
    comparison = report.write(records)
    text = read(records, "report.html")
    page = Page(text)
    assert page.headings == [
        "x",
        "The claim",
        "Arms",
        "Evidence",
        "Learning curves",
        "Time, memory and cost",
        "Speed",
        "Where the time went",
        "Accuracy by class",
        "Corruption robustness",
        "Calibration",
        "Confusion matrices",
        "Disputed and jointly wrong images",
        "Limits",
        "Runs",
        "Configuration",
        "Environment",
        "Downloads",
        "Reproduce",
    ]
    assert page.pictures and all(page.pictures), "every picture has a text"
    beside = {path.name for path in (Path(records.storage.url) / "report").iterdir()}
    for reference in page.references:
        assert reference.startswith("data:") or reference in beside, "what it links to is beside it"
    without_plotly = text.replace(get_plotlyjs(), "")
    assert without_plotly.count("<script>") == 3, "class names are escaped"
    assert "started 1970-01-01 00:00 UTC" in text, "its records' date"
    assert "&lt;script&gt;" in text
    first_paragraph = re.search(r'<p class="conclusion">(.*?)</p>', text, re.DOTALL)
    assert first_paragraph is not None
    assert comparison.conclusion in first_paragraph[1]
    assert "tandem run &#39;a b.yaml&#39;" in text
    assert "2.5 ms" in text and "predictions/s" in text
    assert "in 3 classes; groups: 90 training, 10 validation, 30 test" in text
    assert len(text) < 10_000_000


def test_the_spread_over_seeds_is_told(records: ExperimentRecords) -> None:
    comparison = report.write(records)
    accuracy, *_ = tables.intervals(comparison)
    assert (accuracy["arm"], accuracy["quantity"]) == ("keras", "test accuracy, %")
    low, high = map(float, re.findall(r"\((.*) to (.*)\)", accuracy["mean with its 95 % interval"])[0])
    assert 30 < low < 60 < high < 87, "24.8 to either side over seeds alone; the images count as well"
    assert accuracy["standard deviation"] == "10.00"
    assert html.escape(accuracy["mean with its 95 % interval"]) in read(records, "report.html")


def test_the_other_forms_say_the_same(records: ExperimentRecords) -> None:
    comparison = report.write(records)
    document = json.loads(read(records, "results.json"))
    assert document["schema"] == 3
    assert document["conclusion"] == comparison.conclusion
    assert document["arms"][0]["score"]["mean"] == pytest.approx(0.6)
    rows = list(csv.DictReader(io.StringIO(read(records, "results.csv"))))
    assert [(row["arm"], row["seed"], float(row["test_accuracy"])) for row in rows[:2]] == [
        ("keras", "0", 0.5),
        ("keras", "1", 0.6),
    ]
    epochs = list(csv.DictReader(io.StringIO(read(records, "epochs.csv"))))
    assert len(epochs) == 6 * 3
    markdown = read(records, "report.md")
    assert comparison.conclusion in markdown
    figures = {path.name for path in (Path(records.storage.url) / "report" / "figures").iterdir()}
    assert {
        f"{name}.{kind}" for name in re.findall(r"figures/([\w-]+)\.svg", markdown) for kind in ("svg", "png")
    } == figures
    assert {"accuracy-by-epoch.png", "confusion-torch.svg", "disagreements.svg"} <= figures


def test_the_same_records_give_the_same_bytes(records: ExperimentRecords) -> None:
    report.write(records)
    first = read(records, "report.html")
    report.write(records)
    assert read(records, "report.html") == first


def test_damaged_and_missing_records_are_left_out(records: ExperimentRecords) -> None:
    root = Path(records.storage.url)
    runs = sorted((root / "runs").iterdir())
    (runs[0] / "result.json").write_text("{torn")
    (runs[1] / "epochs.jsonl").write_text("{}\nnot json\n")
    (runs[2] / "predictions.npz").write_bytes(b"torn")
    for file in runs[3].iterdir():
        if file.is_file():
            file.unlink()
    (root / "sessions.jsonl").unlink()
    (root / "disagreements.npz").write_bytes(b"")
    comparison = report.write(records)
    assert [run.state for arm in comparison.arms for run in arm.runs].count("unfinished") == 2
    page = read(records, "report.html")
    Page(page)
    for words in (
        f"runs/{runs[0].name}/result.json is left out: it is no JSON (",
        "Delete result.json of keras seed 0, and tandem resume tests the run again.",
        f"runs/{runs[1].name}/epochs.jsonl, line 1 is left out: epoch: field required",
        f"runs/{runs[1].name}/epochs.jsonl, line 2 is left out: it is no JSON (",
        "0 of 3 epochs of keras seed 1 are recorded.",
        f"runs/{runs[2].name}/predictions.npz is left out: it is no archive of arrays.",
        "Predictions of 1 of 2 finished runs of keras are missing.",
        "Which test images keras classifies correctly is not known for every run.",
        "No driver session is recorded",
        "disagreements.npz is left out",
    ):
        assert any(words in note for note in comparison.notes), (words, comparison.notes)
        assert html.escape(words) in page, words


def test_records_of_a_newer_version_are_reported_as_far_as_they_are_known(records: ExperimentRecords) -> None:
    document = records.document()
    document["schema"] = 3
    document["experiment"]["quantum"] = True
    document["experiment"]["arms"]["torch"]["warp"] = 9
    (Path(records.storage.url) / "experiment.json").write_text(json.dumps(document))
    comparison = report.write(records)
    assert "newer tandem (version 3" in " ".join(comparison.notes)
    assert "the report leaves out parity" in " ".join(comparison.notes)
    assert comparison.arms[1].score is not None
    Page(read(records, "report.html"))


def test_a_report_of_nothing_yet(tmp_path: Path) -> None:
    records = make_records(tmp_path / "x", {"keras": [0.5], "torch": [0.5]})
    for run in (tmp_path / "x" / "runs").iterdir():
        for file in run.iterdir():
            if file.is_file():
                file.unlink()
    assert report.write(records).conclusion.startswith("No run has finished")
    Page(read(records, "report.html"))


def test_what_precision_auto_came_to_is_told(tmp_path: Path) -> None:
    auto = {"precision": "auto"}
    records = make_records(tmp_path / "x", {"a": [0.5, 0.6], "b": [0.5, 0.6]}, arms={"a": auto, "b": auto})
    report.write(records)
    assert "| precision | float32 | float32 |" in read(records, "report.md")
    last = records.document()["runs"][-1]["id"]
    records.run(last).add_attempt(attempt("s2", precision="bfloat16"))
    report.write(records)
    told = read(records, "report.md")
    assert "precision (float32 / bfloat16 and float32)" in told.splitlines()[2], "a factor in the conclusion"
    assert "Some runs of b were computed in bfloat16 and some in float32" in told


def test_runs_without_validation_show_training_curves(tmp_path: Path) -> None:
    records = make_records(tmp_path / "x", {"keras": [0.5], "torch": [0.6]}, validation=False)
    comparison = report.write(records)
    assert any("no validation split" in note for note in comparison.notes)
    Page(read(records, "report.html"))


def test_a_loss_that_is_no_number_leaves_the_results_json(records: ExperimentRecords) -> None:
    file = Path(records.storage.url) / "runs" / records.document()["runs"][0]["id"] / "result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"test_loss": math.inf}))
    report.write(records)
    results = json.loads(read(records, "results.json"), parse_constant=pytest.fail)
    assert results["arms"][0]["runs"][0]["test_loss"] is None


def name_classes(records: ExperimentRecords, names: list[str]) -> None:
    document = records.document()
    document["data"]["class_names"] = names
    records.begin(document)


def test_class_names_are_no_formulas(records: ExperimentRecords) -> None:
    name_classes(records, ["up to $10_", "$10_ and more", "$\\frac$"])
    report.write(records)
    for figure in ("confusion-torch.svg", "class-accuracy.svg", "disagreements.svg"):
        assert "up to $10_" in read(records, f"figures/{figure}"), "as a comment beside the glyphs"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        pytest.param("Ⓐ", 'id="STIXGeneral-Regular', id="another font has it"),
        pytest.param("鳥", ">鳥</text>", id="the reader's may have it"),
    ],
)
def test_every_letter_is_shown(
    records: ExperimentRecords, monkeypatch: pytest.MonkeyPatch, name: str, shown: str
) -> None:
    fonts = font_manager.fontManager.ttflist
    installed = {"DejaVu Sans", "STIXGeneral", "Last Resort High-Efficiency"}
    monkeypatch.setattr(
        font_manager.fontManager, "ttflist", [font for font in fonts if font.name in installed]
    )
    name_classes(records, [name, "b", "c"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report.write(records)
    assert shown in read(records, "figures/confusion-torch.svg")


def test_balanced_accuracy_is_told_where_it_is_another(records: ExperimentRecords) -> None:
    report.write(records)
    told = "balanced accuracy"
    assert told not in read(records, "report.html").lower() and told not in read(records, "report.md")
    for run in records.document()["runs"]:
        file = Path(records.storage.url) / "runs" / run["id"] / "result.json"
        result = json.loads(file.read_text())
        result["confusion"] = [[950, 50, 0], [4, 4, 0], [0, 1, 1]]
        result["test_accuracy"] = 955 / 1010
        file.write_text(json.dumps(result))
        (file.parent / "predictions.npz").unlink()
    comparison = report.write(records)
    arms = json.loads(read(records, "results.json"))["arms"]
    assert [arm["metrics"]["balanced_accuracy"]["interval"]["mean"] for arm in arms] == pytest.approx(
        [0.65, 0.65]
    )
    assert [run["balanced_accuracy"] for run in arms[0]["runs"]] == pytest.approx([0.65] * 3)
    assert "65.00 %" in read(records, "report.html")
    assert "| arm | framework | test accuracy | balanced accuracy |" in read(records, "report.md")
    (outcome,) = gate.judge(comparison, [gate.parse("torch.balanced_accuracy < 0.66", ["torch"])])
    assert outcome.failed


PARITY = Parity(
    frameworks=("keras", "torch"),
    steps=4,
    workers=1,
    loss_difference=1e-7,
    loss_step=2,
    update_difference=1e-6,
    named=[
        NamedDifference(
            name="epsilon",
            sentence="Keras' Adam adds epsilon elsewhere",
            formula="m / (sqrt(v) + e)",
            source="keras.optimizers.Adam, torch.optim.Adam",
            share=1e-3,
            weight="dense.kernel",
            step=1,
        )
    ],
    differs_at=None,
    likely_causes=[],
)


def closed(schema: Any) -> Any:
    """A schema that refuses what it does not describe."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    below = {key: closed(part) for key, part in schema.items()}
    return below | {"additionalProperties": False} if "properties" in schema else below


def fields(schema: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every field that a schema describes, with its path."""
    for name, below in schema.get("properties", {}).items():
        yield f"{path}.{name}", below
        yield from fields(below, f"{path}.{name}")
    for part in ("items", "additionalProperties"):
        if isinstance(schema.get(part), dict):
            yield from fields(schema[part], path)


def test_results_keep_to_their_published_schema(records: ExperimentRecords, tmp_path: Path) -> None:
    """No field is missing, and none is there that the schema does not describe."""
    import jsonschema

    from tests.unit.test_attribution import recorded
    from tests.unit.test_sweep_report import add_sweep

    published = json.loads((ROOT / "docs" / "results.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(published)
    described = dict(fields(published)) | dict(fields({"properties": published["$defs"]}, "$defs"))
    assert len(described) > 150 and all(field.get("description") for field in described.values())
    validator = jsonschema.Draft202012Validator(closed(published))
    add_sweep(records, {"keras": 2, "torch": 2})
    for made in (records, recorded(tmp_path)):
        comparison = compare.analyse(made)
        validator.validate(json.loads(json.dumps(results.document(comparison), allow_nan=False)))
    traced = [dataclasses.replace(arm, parity=PARITY) for arm in comparison.arms]
    comparison = dataclasses.replace(comparison, arms=traced)
    validator.validate(json.loads(json.dumps(results.document(comparison), allow_nan=False)))
    told = results.document(comparison)
    del told["arms"][0]["runs"][0]["state"]
    assert not validator.is_valid(told)
    assert not validator.is_valid(results.document(comparison) | {"further": 1})


def test_columns_have_one_type_whatever_is_in_them(records: ExperimentRecords, tmp_path: Path) -> None:
    """Full, half empty and empty columns: the data dictionary's types in every report."""
    from pyarrow import parquet

    empty = make_records(tmp_path / "empty", {"keras": [0.5], "torch": [0.5]}, validation=False)
    for run in (tmp_path / "empty" / "runs").iterdir():
        for name in ("result.json", "attempts.jsonl"):
            (run / name).unlink()
    bare = make_records(tmp_path / "bare", {"keras": [0.5]})
    for run in (tmp_path / "bare" / "runs").iterdir():
        for file in run.iterdir():
            if file.is_file():
                file.unlink()
    tabled = {
        "results": (columns.RUNS, columns.run_rows),
        "metrics": (columns.METRICS, columns.metric_rows),
        "epochs": (columns.EPOCHS, columns.epoch_rows),
        "reports": (columns.REPORTS, columns.report_rows),
    }
    for table, rows_of in tabled.values():
        schemas = []
        for made in (records, empty, bare):
            rows = rows_of(compare.analyse(made))
            text, binary = columns.files(table, rows)
            read_back = parquet.read_table(io.BytesIO(binary))
            assert read_back.num_rows == len(rows)
            assert text.decode().splitlines()[0] == ",".join(f'"{column.name}"' for column in table)
            schemas.append(read_back.schema)
        assert schemas[0].equals(schemas[1], check_metadata=True)
        assert schemas[0].equals(schemas[2], check_metadata=True)
        assert [str(kind) for kind in schemas[0].types] == [column.type for column in table]
        described = schemas[0].field("seed").metadata
        assert described == {b"description": b"The seed."}


def test_every_recorded_number_has_a_column(records: ExperimentRecords) -> None:
    comparison = compare.analyse(records)
    names = {column.name for column in columns.EPOCHS}
    assert {*columns.epoch_rows(comparison)[0]} - {"schema"} <= names
    assert {*columns.run_rows(comparison)[0]} == {column.name for column in columns.RUNS}
    written = (ROOT / "docs" / "data-dictionary.md").read_text()
    assert columns.markdown() in written, "docs/data-dictionary.md has the tables of report/columns.py"


NASTY = "| a `b` *c* _d_ <b>e</b> [f](g) # h\n- i ~~j~~ $k$ &amp; \\ 1. l"


def test_markdown_shows_any_text_as_it_is(records: ExperimentRecords) -> None:
    from markdown_it import MarkdownIt

    render = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render
    for text in (
        NASTY,
        "- x",
        "# x",
        "1. x",
        "+ x",
        "---",
        "===",
        "12.5 % (1 to 2)",
        "> q",
        "```",
        "| a | b |",
    ):
        shown = html.unescape(re.sub(r"<[^>]*>", "", render(markdown.escape(text))))
        assert shown.strip() == " ".join(text.split()), text
    run = records.document()["runs"][0]["id"]
    (Path(records.storage.url) / "runs" / run / "result.json").unlink()
    records.run(run).add_failure({"driver_session": "s1", "cause": NASTY, "detail": "", "permanent": True})
    document = records.document()
    document["experiment"]["arms"]["keras"]["model"] = "mine|x:<script>alert(1)</script>"
    records.begin(document)
    comparison = compare.analyse(records)
    page = render(markdown.write(comparison, {}))
    assert "<script>" not in page and "<b>e</b>" not in page and "<em>" not in page
    assert " ".join(NASTY.split()) in html.unescape(page)
    widths = {
        len(re.findall(r"<t[dh]", row))
        for table in re.findall(r"<table>.*?</table>", page, re.DOTALL)
        if "mine|x" in table
        for row in re.findall(r"<tr>.*?</tr>", table, re.DOTALL)
    }
    assert widths == {3}, "a bar in a cell begins no other cell"


def test_a_report_made_again_is_the_same_to_the_byte(records: ExperimentRecords) -> None:
    report.write(records)
    first = {
        path: path.read_bytes()
        for path in (Path(records.storage.url) / "report").rglob("*")
        if path.is_file()
    }
    report.write(records)
    assert len(first) > 10
    assert all(path.read_bytes() == content for path, content in first.items())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (4.24, "4.2 s"),
        (59.97, "1 min 0 s"),
        (199.7, "3 min 20 s"),
        (3599.6, "1 h 0 min"),
        (7190, "2 h 0 min"),
    ],
)
def test_a_duration_never_has_sixty_seconds_or_minutes(seconds: float | None, text: str) -> None:
    assert wording.duration(seconds) == text


def test_the_environment_shows_what_the_workers_of_each_framework_had(records: ExperimentRecords) -> None:
    settings = {"OMP_NUM_THREADS": "2", "MALLOC_ARENA_MAX": None, "TF32": False}
    for number, run in enumerate(records.document()["runs"]):
        threads = {"threads": 2 + number % 2} if run["framework"] == "torch" else {}
        of_run = attempt("s2") | {"environment": {"settings": settings | threads}}
        records.run(run["id"]).add_attempt(of_run)
    report.write(records)
    assert json.loads(read(records, "results.json"))["settings"]["threads"] == {"torch": [3, 2]}
    for line in (
        "| setting | keras | torch |",
        "| OMP_NUM_THREADS | 2 | 2 |",
        "| MALLOC_ARENA_MAX | not set | not set |",
        "| TF32 | off | off |",
        "| threads | – | 3, 2 |",
    ):
        assert line in read(records, "report.md")
    assert '<tr><th scope="row">threads</th><td>–</td><td>3, 2</td></tr>' in read(records, "report.html")
