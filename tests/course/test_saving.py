"""What a notebook keeps when it is saved: no form whose kernel will be gone, where a page stands beside it."""

import asyncio
import json

import pytest
from jupyter_server.extension.manager import ExtensionPackage
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager

from parallel_lab.course import saving
from parallel_lab.course.saving import PAGE, WIDGET

FORM = {"model_id": "1a2b", "version_major": 2, "version_minor": 0}


def showing(**data):
    return {"output_type": "display_data", "metadata": {}, "data": data}


def notebook(*outputs):
    code = {"cell_type": "code", "id": "a", "metadata": {}, "execution_count": 1, "source": "quiz(1)"}
    cells = [{"cell_type": "markdown", "id": "b", "metadata": {}, "source": "Words."}, {**code, "outputs": [*outputs]}]
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}


class Server:
    """As much of a server as an extension asks for."""

    def __init__(self, folder):
        self.contents_manager = AsyncLargeFileManager(root_dir=str(folder))


@pytest.fixture
def saved(tmp_path):
    """Saves outputs through the contents manager of a server that loaded the extension; returns those in the file."""
    server = Server(tmp_path)
    package = ExtensionPackage(name=saving.__name__, enabled=True)
    assert package.validate()
    package.load_point(saving.__name__, server)

    def save(*outputs):
        model = {"type": "notebook", "format": "json", "content": notebook(*outputs)}
        asyncio.run(server.contents_manager.save(model, "a.ipynb"))
        return json.loads((tmp_path / "a.ipynb").read_text())["cells"][1]["outputs"]

    return save


def test_the_page_beside_a_form_stays_and_the_form_goes(saved):
    (output,) = saved(showing(**{WIDGET: FORM, PAGE: "Run this cell.", "text/plain": "Run"}))
    assert output["data"] == {PAGE: ["Run this cell."], "text/plain": ["Run"]}


def test_all_else_is_saved_as_it_is(saved):
    stream = {"output_type": "stream", "name": "stdout", "text": ["1"]}
    alone = showing(**{WIDGET: FORM, "text/plain": ["VBox()"]})
    assert saved(stream, alone, showing(**{PAGE: ["A page."]})) == [stream, alone, showing(**{PAGE: ["A page."]})]


@pytest.mark.parametrize("model", [{"type": "directory"}, {"type": "file", "content": "x"}, {"type": "notebook"}])
def test_what_has_no_cells_is_left_alone(model):
    before = dict(model)
    saving.without_forms(model=model, path="x", contents_manager=None)
    assert model == before
