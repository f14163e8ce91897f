"""The course machinery: question cards, self-checks, checks of exercises and the learner's progress.

The face is lazy (SPEC 1): whoever asks for a card need not load the graders.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "chapters": ["progress_table"],
        "checks": ["case", "check", "hint"],
        "listing": ["show"],
        "planning": ["plan_widget"],
        "practice": ["drill"],
        "questions": ["ask"],
        "quizzes": ["predict", "quiz"],
        "sprints": ["sprint"],
        "terms": ["glossary", "symbols"],
    },
)
