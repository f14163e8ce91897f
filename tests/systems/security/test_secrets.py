"""A secret in a cell, an output, a traceback or metadata is found; what has no known form is not; environments leak."""

import os
import pickle
import subprocess
import sys

import nbformat
import pytest

from parallel_lab.systems.security import Secret, read_secret, secrets

AWS, GITHUB, FACE = "AKIA" + "Q7ZK2M4N6P8R0T1V", "ghp_" + "a1B2c3D4e5" * 4, "hf_" + "xY7zW6vU5t" * 4
PEM = "-----BEGIN PRIVATE KEY-----\nMIIBVQIBADANBg\n-----END PRIVATE KEY-----"
MADE_UP = "kD93kfPq02mZx81L"


def _notebook():
    book = nbformat.v4.new_notebook()
    outputs = [
        nbformat.v4.new_output("stream", text=f"env: AWS_ACCESS_KEY_ID={AWS}\n"),
        nbformat.v4.new_output("execute_result", data={"text/plain": [f"'https://me:{MADE_UP}@host/repo'"]}),
        nbformat.v4.new_output("error", ename="E", evalue="refused", traceback=[f"token={FACE}"]),
    ]
    book.cells = [
        nbformat.v4.new_markdown_cell("Set `api_key = 'your-key-here'` and the learning rate 0.001."),
        nbformat.v4.new_code_cell(f"login(token='{GITHUB}')", outputs=outputs),
        nbformat.v4.new_code_cell(f'password = "{MADE_UP}"\nkey = """{PEM}"""', metadata={"by": f"secret: {MADE_UP}"}),
    ]
    return book


def test_each_secret_is_found_where_it_stands_and_not_shown():
    found = secrets.scan(_notebook())
    assert {(each.cell, each.place, each.kind) for each in found} == {
        (1, "source", "GitHub token"),
        (1, "output", "AWS access key"),
        (1, "output", "password in an address"),
        (1, "output", "Hugging Face token"),
        (2, "source", "private key"),
        (2, "source", "assigned secret"),
        (2, "metadata", "assigned secret"),
    }
    assert not any(each.text in str(each) + repr(each) for each in found) and "AKIA…" in str(found)


def test_a_cleaned_notebook_has_none_left(tmp_path):
    book = nbformat.from_dict(secrets.cleaned(_notebook()))
    nbformat.validate(book)
    assert secrets.scan(book) == [] and book.cells[0].source == _notebook().cells[0].source
    nbformat.write(book, tmp_path / "clean.ipynb")
    nbformat.write(_notebook(), tmp_path / "leaks.ipynb")
    assert secrets.scan_file(tmp_path / "clean.ipynb") == []
    assert set(secrets.scan_file(tmp_path / "leaks.ipynb")) == set(secrets.scan(_notebook()))


def test_what_the_scanner_does_not_know_passes():
    for text in ("password = 'correct horse battery staple'", "token = get_token()", "tokens: 16384", MADE_UP):
        assert secrets.secrets_in(text) == [], text


def test_a_child_inherits_the_environment_and_others_of_the_user_read_it():
    given = os.environ | {"WANDB_API_KEY": MADE_UP, "REMOTE": f"https://me:{MADE_UP}@host/"}
    for environment, leaks in ((given, True), (secrets.without_secrets(given), False)):
        child = subprocess.Popen(
            [sys.executable, "-S", "-c", "print('up', flush=True); input()"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        child.stdout.readline()  # it runs, so its environment is its own
        seen = secrets.environment_of(child.pid)
        child.communicate(b"\n")
        assert (MADE_UP in str(seen)) is leaks and seen["PATH"] == os.environ["PATH"]


def test_a_secret_does_not_print_and_its_file_must_be_its_owners(tmp_path):
    path = tmp_path / "token"
    path.write_text(GITHUB + "\n")
    path.chmod(0o644)
    with pytest.raises(PermissionError, match="044"):
        read_secret(path)
    path.chmod(0o600)
    secret = read_secret(path)
    assert isinstance(secret, Secret) and secret.reveal() == GITHUB
    assert f"{secret} {secret!r} {[secret]}".count("Secret(***)") == 3
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(secret)
