"""The pages of growth are what its script makes of what was measured, and its lines are those of the sizes."""

import pytest

from benchmarks import growth


def test_the_pages_are_made_from_what_was_measured():
    found = growth.Growth.read(growth.MEASURED)
    assert growth.PAGE.read_text() == growth.page(found)
    text = growth.DOCUMENT.read_text()
    assert text == growth.written(text, growth.block(found)) and growth.block(found) in text


def test_other_sizes_follow_the_line_and_the_price():
    """Seconds 10 + 2 x documents; a price an hour of a core."""
    sizes = [
        growth.Size(
            n,
            500.0 * n,
            {"score": growth.Took(10 + 2 * n, 1e9 + 1e8 * n, 1e12), "proxy": growth.Took(9, 9, 9)},
        )
        for n in (10, 20, 40)
    ]
    found = growth.Growth("here", ["exp=x"], sizes)
    assert found.names == ["score"]
    assert found.at("score", "seconds", 1000) == pytest.approx(2010)
    assert found.at("score", "flops", 1000) == 1e12  # what does not grow is flat
    assert found.at("score", "rss", 1000) == pytest.approx(101e9)
    row = next(
        line for line in growth.block(found, price=3600.0).splitlines() if line.startswith("| 1,000 |")
    )
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["1,000", "5e+05", "0.558 h", "0.558 h", "1e+02 GB", "$2e+03"]
    assert growth.slope([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
