"""Pictures whose rows have long labels: the axes keep their room, whatever a source is called."""

import matplotlib
import pytest

from repro.report import interactive, still
from repro.report.plots import Panel, Plot, Series, Words

matplotlib.use("Agg")


def of(letters: int, panels: int) -> Plot:
    labels = [f"{i}{'n' * (letters - 1)}" for i in range(9)]
    values = [float(i) for i in range(9)]
    rows = [Series("corpus", values, labels, "interval", values, values)]
    return Plot(
        "sources", "What was selected", "", [Panel(f"domain {i}", "share", "", rows) for i in range(panels)]
    )


@pytest.mark.parametrize("panels", [1, 2, 4, 7])
@pytest.mark.parametrize("letters", [3, 20, 36, 60, 400])
def test_long_labels_leave_the_axes_their_room(tmp_path, monkeypatch, letters, panels):
    """matplotlib's own word that they do not is an error in these tests (pyproject.toml)."""
    from matplotlib import pyplot

    found, closed = [], pyplot.close

    def close(figure):
        closed(figure)
        for axis in figure.axes:
            if axis.get_visible():
                found.append(axis.get_window_extent().width / figure.dpi)

    monkeypatch.setattr(pyplot, "close", close)
    still.write(of(letters, panels), tmp_path)
    assert len(found) == panels and min(found) > 0.8 * still.AXES
    assert (tmp_path / "sources.png").stat().st_size > 10_000


def test_panels_with_short_labels_stand_side_by_side_and_a_long_label_keeps_its_ends():
    assert [still.columns(of(3, n)) for n in (1, 4, 7)] == [1, 2, 3]
    assert still.columns(of(34, 7)) == 2 and still.columns(of(34, 2)) == 2
    assert still.columns(of(60, 7)) == 1
    long = "standardebooks/charles-darwin_the-origin-of-species"
    assert still._short(long, still._letters(1)) == long
    short = still._short(long, 38)
    assert len(short) == 38 and short.startswith("standardebooks/cha") and short.endswith("origin-of-species")


def test_rows_of_many_intervals_are_higher():
    def panel(number):
        return Panel(
            "", "", "", [Series(f"{i}", [1.0], ["task"], "interval", [1.0], [1.0]) for i in range(number)]
        )

    assert [panel(n).row_height for n in (0, 1, 3, 15)] == [1, 1, 1, 5]
    assert interactive._pixels(panel(15)) - 34 == 5 * (interactive._pixels(panel(1)) - 34)
    assert still._height(panel(15)) - 1 == pytest.approx(5 * (still._height(panel(1)) - 1))


def test_titles_keep_within_their_panels_and_tokens_are_counted_in_millions(tmp_path, monkeypatch):
    from matplotlib import pyplot

    seen, closed = [], pyplot.close

    def close(figure):
        figure.canvas.draw()
        for axis in figure.axes:
            ticks = {label.get_text() for label in axis.get_xticklabels()}
            seen.append((axis.title.get_window_extent(), ticks))
        closed(figure)

    monkeypatch.setattr(pyplot, "close", close)
    lines = [Series("a", [2e6, 4e6, 8e6], [0.1, 0.2, 0.3])]
    title = "mean accuracy of the 2 tasks above chance, higher is better"
    still.write(Plot("t", "", "", [Panel(title, "training tokens", "", lines)] * 3), tmp_path)
    titles = [box for box, *_ in seen]
    assert all(left.x1 < right.x0 for left, right in zip(titles, titles[1:], strict=False))
    assert all("4M" in ticks for *_, ticks in seen)


def test_names_are_drawn_as_they_are(tmp_path):
    """Two dollars are no formula; a control character would leave a file that is no SVG."""
    from xml.etree import ElementTree

    bad, shown = "a$b^{$c\x01\ud800", "a$b^{$c\ufffd\ufffd"
    modes = ("interval", "bars", "line", "points")
    series = [Series(f"{bad} {m}", [1.0, 2.0], [bad, "b"], m, [0.5, 1.0], [2.0, 3.0]) for m in modes[:2]]
    series += [Series(f"{bad} {m}", [10.0, 2000.0], [1.0, 2.0], m) for m in modes[2:]]
    panels = [Panel(bad, bad, bad, [one], log_x=one.mode == "line") for one in series]
    still.write(Plot("p", bad, bad, [*panels, Panel(content=Words([(bad, 1.0)]))]), tmp_path)
    texts = [t for e in ElementTree.parse(tmp_path / "p.svg").iter() for t in e.itertext() if t.strip()]
    for text in (shown, *(f"{shown} {mode}" for mode in modes)):
        assert text in texts
    assert {"100", "1k"} <= set(texts) and not any("mathdefault" in text for text in texts)
