"""Pictures of a run: the only place that loads matplotlib and widgets."""

from parallel_lab.view.chrome import chrome_trace, save_chrome
from parallel_lab.view.drawing import Drawing
from parallel_lab.view.flow import flow
from parallel_lab.view.memory import draw_memory
from parallel_lab.view.plots import bars, lines
from parallel_lab.view.sheets import draw_mesh, grid, heatmap
from parallel_lab.view.sliders import sliders
from parallel_lab.view.text import summary
from parallel_lab.view.timeline import Timeline, draw
from parallel_lab.view.topology import topology

__all__ = [
    "Drawing",
    "Timeline",
    "bars",
    "chrome_trace",
    "draw",
    "draw_memory",
    "draw_mesh",
    "flow",
    "grid",
    "heatmap",
    "lines",
    "save_chrome",
    "sliders",
    "summary",
    "topology",
]
