"""An extension of the Jupyter server: what a notebook keeps of a form when it is saved.

A form lives in a kernel, and JupyterLab prefers it to the page beside it even where that kernel is gone; there it shows
"Error displaying widget: model not found". So a saved notebook has the page only, which says to run the cell again.
"""

from typing import Any

WIDGET, PAGE = "application/vnd.jupyter.widget-view+json", "text/html"


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(server: Any) -> None:
    server.contents_manager.register_pre_save_hook(without_forms)


def without_forms(model: dict[str, Any], **_: Any) -> None:
    """Takes the forms out of a notebook that is about to be saved, where a page stands beside them."""
    if model.get("type") != "notebook":
        return
    for cell in (model.get("content") or {}).get("cells", ()):
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if PAGE in data:
                data.pop(WIDGET, None)
