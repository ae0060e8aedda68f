import pandas as pd

from helpers import plots, style


def colours_of(figure):
    """The colours of the dots, from top to bottom."""
    return [one[0].get_color() for ax in figure.axes for one in ax.containers]


def test_methods_have_their_own_colours_and_other_lines_one():
    rows = [{"name": name, "measure": "kid", "value": 1.0, "low": 0.5, "high": 2.0} for name in ("madry", "trades")]
    drawn = {"by": "name", "panels": {"kid": "KID"}}
    own = colours_of(plots.interval_dots(pd.DataFrame(rows), **drawn))
    assert own == [style.METHODS["madry"], style.METHODS["trades"]]
    one = colours_of(plots.interval_dots(pd.DataFrame(rows), colour=style.JOINT, **drawn))
    assert one == [style.JOINT, style.JOINT]
