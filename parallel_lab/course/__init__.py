"""The course machinery: question cards, self-checks, graded exercises and the learner's progress.

The face is lazy (SPEC 1), because a rank that runs learner code imports `course.rank_side` and must load no widgets.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "checks": ["check", "hint"],
        "listing": ["show"],
        "progress": ["progress_table"],
        "questions": ["ask"],
        "quizzes": ["choice", "number", "quiz"],
    },
)
