"""The report as a whole: from made-up records and from the committed ones to one page that needs nothing else."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from toy_runs import YAML, raw, write, write_paper

from reprise.evidence import records_path, save_records
from reprise.layout import Table, to_markdown
from reprise.report import page
from reprise.report.content import SHOWN_SCALES, gather
from reprise.reported import PAPERS_DIR, available_papers, load_reported
from reprise.stats import ClaimVerdict
from reprise.tables import comparison_tables

ROOT = Path(__file__).resolve().parents[2]
LOADING = {"src", "srcset", "poster", "data", "action", "background"}


class Page(HTMLParser):
    """What a page holds: ids, links, addresses that are loaded, the rows of its tables, all text outside scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.code: list[tuple[dict[str, str | None], str]] = []
        self._in: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self._in += [tag] if tag in ("script", "style") else []
        self.ids += [found["id"]] if found.get("id") else []
        self.links += [found["href"]] if tag == "a" else []
        self.loaded += [found["href"]] if tag == "link" else []
        self.loaded += [value for name, value in found.items() if name in LOADING]
        self.rows += [[]] if tag == "tr" else []
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
        if tag == "script":
            self.code.append((found, ""))

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._in.pop()

    def handle_data(self, data):
        if self._in:
            if self._in[-1] == "script":
                self.code[-1] = (self.code[-1][0], self.code[-1][1] + data)
            return
        self.text += data
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture(scope="module")
def read(whole) -> Page:
    return Page(whole)


def toy(tmp_path: Path, yaml: str = YAML) -> tuple[Path, Path]:
    papers, out = write_paper(tmp_path), tmp_path / "out"
    (papers / "toy" / "reported.yaml").write_text(yaml)
    return papers, out


def built(out: Path, papers: Path) -> Page:
    return Page(page.html(gather(out, papers, available_papers(papers))))


# --- the committed records --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("paper", available_papers())
def test_every_claim_stands_on_the_front_page_with_its_verdict_at_each_scale(views, read, paper):
    view = next(v for v in views if v.name == paper)
    reported = load_reported(paper)
    assert [c.claim.id for c in view.claims] == [c.id for c in reported.claims]
    for claim in view.claims:
        verdicts = [claim.verdict(scale) for scale in SHOWN_SCALES]
        row = next(
            r for r in read.rows if [words(x) for x in r[:3]] == [view.label, claim.claim.id, claim.claim.sentence]
        )
        assert [words(cell).startswith(verdict) for cell, verdict in zip(row[3:], verdicts, strict=True)] == [
            True,
            True,
        ]
        assert f"{paper}-claim-{page.slug(claim.claim.id)}" in read.ids


def test_every_link_leads_somewhere_and_no_anchor_stands_twice(read):
    inside = [link for link in read.links if not link.startswith("http")]
    assert len(inside) > 500
    assert {link.removeprefix("#") for link in inside} <= set(read.ids)
    assert len(read.ids) == len(set(read.ids))


def test_nothing_is_loaded_from_elsewhere(whole, read):
    assert all(address.startswith("data:") for address in read.loaded)
    style = whole[whole.index("<style>") : whole.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_the_tables_say_what_the_markdown_tables_say(views, read):
    rows = {tuple(words(cell) for cell in row) for row in read.rows}
    shown = {row[:-1] for row in rows}  # without the links to runs
    for view in views:
        for table in (*view.results, *view.cost[1:]):
            for row in table.rows:
                assert tuple(map(words, row)) in shown, (table.title, row)
        tables = (ROOT / "outputs" / "tables" / f"{view.name}.md").read_text() if view.found.records else ""
        for table in view.results:
            assert to_markdown([table]) in tables


def test_reported_numbers_stand_beside_ours_as_in_the_markdown_tables(views, read):
    rows = [[words(cell) for cell in row] for row in read.rows]
    for view in views:
        for table in comparison_tables(view.reported, view.found.records)[:-1]:
            for where, name, column, paper, ours, seeds, verdict in table.rows:
                start = [words(where), words(name), words(column), paper]
                found = [row for row in rows if row[:4] == start and ours.split(" ")[0] == row[5] and row[8] == seeds]
                assert found, (table.title, name, column)
                assert any(row[9] == verdict.replace(": ", " ", 1) for row in found)


def test_every_row_of_results_leads_to_its_runs_and_their_command(views, read):
    for view in views:
        keys = {group.key for group in view.runs}
        assert {r.group for r in view.found.records} == keys
        assert {f"runs-{key}" for key in keys} <= set(read.ids)
        for table in (*view.results, *view.compared, *(t for c in view.claims for t in c.evidence)):
            assert len(table.runs) == len(table.rows)
            assert {key for row in table.runs for key in row} <= keys
        for group in view.runs:
            assert group.command in read.text


def test_charts_of_sweeps_show_what_the_tables_show(views):
    counted = 0
    for view in views:
        swept = {curve.table.rpartition("/")[2] for curve in view.reported.display.curves}
        cells = {cell for table in view.results for row in table.rows for cell in row}
        for figure in view.figures:
            if figure.name.rpartition("_")[0] in swept:
                rows = [row for panel in figure.panels for row in panel.spec["data"]["values"] if row["seeds"] > 1]
                assert {row["shown"] for row in rows} <= cells
                counted += len(rows)
    assert counted > 100


def test_every_chart_compiles(read):
    import vl_convert

    charts = json.loads(next(code for a, code in read.code if a.get("id") == "charts"))
    assert len(charts) >= 12
    for name, panels in charts.items():
        assert name in read.ids
        for spec in panels:
            assert spec["data"]["values"]
    for panels in charts.values():  # one panel of each, which takes long enough
        svg = vl_convert.vegalite_to_svg(panels[0] | {"width": 300})
        assert "NaN" not in svg
        assert "undefined" not in svg


def test_what_was_not_run_is_told(views, read):
    for view in views:
        for claim in view.claims:
            if claim.results["cpu"] and claim.verdict("cpu") == ClaimVerdict.NOT_RUN:
                assert claim.results["cpu"].reason in read.text
        for missing in view.reported.not_found:
            assert words(missing) in words(read.text)


def test_the_page_is_light_enough(whole):
    assert len(whole.encode()) < 4_000_000


# --- small folders ----------------------------------------------------------------------------------------------------


def test_no_records_give_a_page_that_says_so(tmp_path):
    papers, out = toy(tmp_path)
    read = built(out, papers)
    assert "No finished runs." in read.text
    assert "The records have nothing to draw." in read.text
    assert "needs a sweep" in read.text
    assert not [code for _, code in read.code if "vegaEmbed=" in code.replace(" ", "")]  # no charts, no library


def test_one_record_has_no_interval_and_no_verdict(tmp_path):
    papers, out = toy(tmp_path)
    write(out, raw("ours", 0, 0.912))
    read = built(out, papers)
    row = next(r for r in read.rows if words(r[0]) == "Table 1" and "91.20" in map(words, r))
    assert [words(cell) for cell in row[3:9]] == ["90.00 ± 0.50°", "secondary", "91.20", "-", "-", "1"]
    assert words(row[9]).startswith("PARTIAL not the paper's scale; 1 of 3 seeds; differs by +1.2")


def test_a_reported_number_has_mean_deviation_interval_and_count(tmp_path):
    papers, out = toy(tmp_path)
    for seed, accuracy in enumerate((0.89, 0.90, 0.91)):
        write(out, raw("ours", seed, accuracy))
    read = built(out, papers)
    row = next(r for r in read.rows if words(r[0]) == "Table 1" and words(r[1]) == "Ours")
    # t(0.975, 2) = 4.3027, so that the interval is 90 -+ 4.3027 * 1 / sqrt(3)
    assert [words(cell) for cell in row[5:9]] == ["90.00", "1.00", "[87.52, 92.48]", "3"]


def test_an_unreadable_line_is_named_and_the_rest_is_shown(tmp_path):
    papers, out = toy(tmp_path)
    write(out, raw("ours", 0))
    save_records(out, "toy")
    path = records_path(out, "toy")
    path.write_text(path.read_text() + '{"half\n')
    shutil.rmtree(out / "runs")
    read = built(out, papers)
    assert f"Left out: {path}:2, which is not valid JSON." in read.text
    assert "runs-g-ours-p-toy" in " ".join(read.ids)


def test_failed_running_and_smoke_runs_are_told_apart(tmp_path):
    papers, out = toy(tmp_path)
    write(out, raw("ours", 1), state="failed", error="ValueError: <boom>")
    write(out, raw("ours", 2), state="running")
    write(out, raw("ours", 3, 0.99, scale="smoke"))
    read = built(out, papers)
    assert "ValueError: <boom>" in read.text
    assert "Unfinished: runs/ours/toy/" in read.text
    assert "1 smoke runs were left out" in read.text
    assert "0.99" not in read.text


def test_markup_in_records_and_reported_numbers_is_shown_as_text(tmp_path):
    evil = "</script><script>alert(1)</script><b>&"
    papers, out = toy(
        tmp_path,
        YAML.replace("It is cheap.", json.dumps(evil)).replace("label: accuracy", f"label: {json.dumps(evil)}"),
    )
    for method in ("ours", "base"):
        for seed in range(3):
            write(out, raw(method, seed, variant=None, condition={"rate": 0.2, "note": evil}))
    text = page.html(gather(out, papers, ["toy"]))
    assert "<script>alert" not in text
    assert "<b>&" not in text
    read = Page(text)
    assert evil in read.text
    charts = next(code for a, code in read.code if a.get("id") == "charts")
    assert evil in json.dumps(json.loads(charts), ensure_ascii=False)


def test_a_paper_brings_its_own_charts(tmp_path):
    papers, out = toy(tmp_path)
    (papers / "toy" / "charts.py").write_text(
        "from reprise.report.charts import Axis, Chart, Panel, Picture, Series, lines, plain\n"
        "def charts(reported, records, output_dir):\n"
        "    rows = [{'series': 'one', 'x': x, **plain(x * x, '.1f')} for x in (1.0, 2.0)]\n"
        "    spec = lines(rows, Axis('x'), Axis('y'), [Series('one', '#0072b2', 'circle')])\n"
        "    own = Chart('own', 'My own chart', 'told', (Panel('here', spec),))\n"
        "    return [own, Picture('still', 'A still', '', b'png')]\n"
    )
    read = built(out, papers)
    assert {"toy-own", "toy-still"} <= set(read.ids)
    charts = json.loads(next(code for a, code in read.code if a.get("id") == "charts"))
    assert [row["mean"] for row in charts["toy-own"][0]["data"]["values"]] == [1.0, 4.0]
    assert "data:image/png;base64,cG5n" in read.loaded


# --- writing ----------------------------------------------------------------------------------------------------------


def test_the_same_records_give_the_same_bytes_in_any_order(committed, tmp_path):
    papers = available_papers()
    first = [path.read_bytes() for path in page.write(committed, PAPERS_DIR, papers)]
    for file in (committed / "records").iterdir():
        (tmp_path / "records").mkdir(exist_ok=True)
        lines = file.read_text().splitlines(keepends=True)
        (tmp_path / "records" / file.name).write_text("".join(reversed(lines)))
    assert [path.read_bytes() for path in page.write(tmp_path, PAPERS_DIR, papers)] == first


def test_the_markdown_twin_has_the_claims_the_tables_and_the_commands(views):
    text = page.markdown(views)
    for view in views:
        for claim in view.claims:
            assert claim.claim.sentence.replace("|", "\\|") in text
        for table in (*view.compared, *view.results, *view.cost):
            assert to_markdown([table]).strip() in text
        for group in view.runs:
            assert group.command in text
    assert "## Methods" in text


def test_the_text_on_methods_states_the_rules_in_force(views):
    from reprise import stats

    text = page.methods(views)
    assert f"Below {stats.BCA_FROM} values" in text
    assert f"fewer than {stats.MIN_SEEDS} pairs" in text
    assert f"{stats.RESAMPLES:,} resamples" in text
    for relation in stats.RELATIONS:
        assert f"| {relation} |" in text
    for verdict in (*stats.CellVerdict, *stats.ClaimVerdict):
        assert verdict.value in text


def test_the_text_on_methods_becomes_a_part_of_the_page(read):
    assert "Verdicts on reported numbers" in read.text
    assert ["within", "at most tolerance off 0"] in [[words(cell) for cell in row[:2]] for row in read.rows]


def test_relations_that_were_judged_are_counted(views):
    """By hand from the evidence tables: every comparison with three pairs or more."""
    pairs = [int(row[7]) for view in views for c in view.claims for t in c.evidence for row in t.rows]
    assert f"{sum(n >= 3 for n in pairs)} relations were judged" in page.methods(views)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("C4 (few tasks)", "c4-few-tasks"), ("N/A", "n-a"), ("  ", ""), ("λ: <b>", "b")],
)
def test_anchors_are_plain(text, wanted):
    assert page.slug(text) == wanted


def test_a_verdict_is_told_from_other_text():
    assert page.split_verdict("NOT REPRODUCED: differs by 2") == ("NOT REPRODUCED", "differs by 2")
    assert page.split_verdict("discovery AUROC: a > b") == ("", "")
    assert re.fullmatch(r"[A-Z /]+", "".join(page.VERDICTS))


def test_columns_of_numbers_are_set_flush_right():
    rows = (("a", "1.5 ± 0.2", "[1, 2]", "3/5", "-", "1,000"), ("b", "-", "-", "-1", "-", "x"))
    assert page.numeric(Table("t", tuple("abcdef"), rows)) == [False, True, True, True, False, False]


def test_namesakes_are_told_apart_by_what_differs():
    tables = [Table("t", (), (), caption) for caption in ("rate 0.1, size 5", "rate 0.2, size 5")]
    assert [page.differences(tables, one) for one in tables] == ["rate 0.1", "rate 0.2"]
    assert page.differences([Table("u", (), (), "rate 1"), *tables], Table("u", (), (), "rate 1")) == ""
