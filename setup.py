"""A wheel carries the course: notebooks, exercises, solutions, examples and CHANGELOG lie in `parallel_lab/_course`.

All else about the package stands in pyproject.toml.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

CARRIED = ("notebooks", "exercises", "solutions", "examples")
ROOT = Path(__file__).parent


class WithCourse(build_py):
    """Copies the course into what is built; an editable install has it beside the package already."""

    def run(self) -> None:
        """Builds the package, then copies."""
        super().run()
        if self.editable_mode:
            return
        inside = [file for folder in CARRIED for file in sorted((ROOT / folder).rglob("*"))]
        for file in [ROOT / "CHANGELOG.md", *inside]:
            if file.suffix in (".ipynb", ".py", ".sbatch", ".md") and "checkpoints" not in str(file):
                copy = Path(self.build_lib, "parallel_lab", "_course", file.relative_to(ROOT))
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)


setup(cmdclass={"build_py": WithCourse})
