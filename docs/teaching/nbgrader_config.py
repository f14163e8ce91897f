"""Settings for a class with nbgrader: copy this file into the folder of the class, beside its `source/`.

`nbgrader` finds it there. docs/teaching/README.md says what to do then.
"""

from nbgrader.converters.generate_assignment import GenerateAssignment
from nbgrader.preprocessors import ClearSolutions

from parallel_lab.course.generate import strip

c = get_config()  # noqa: F821, nbgrader gives it


class ShownSolutions(ClearSolutions):
    """Cuts solutions out of an assignment as the course does: code that is to be mended stays in it."""

    def _replace_solution_region(self, cell, language):
        before = cell.source
        cell.source = strip(before, cell.get("id", "cell"))
        return cell.source != before


given = GenerateAssignment.preprocessors.default_args[0]
c.GenerateAssignment.preprocessors = [ShownSolutions if one is ClearSolutions else one for one in given]
c.Execute.timeout = 1800  # of a cell, in seconds: checks stop by themselves, a busy machine takes longer
c.IgnorePattern.enabled = True
c.IgnorePattern.pattern = r".*"  # what a check prints to stderr is no error
