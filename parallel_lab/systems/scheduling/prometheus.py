"""A real Prometheus on the loopback, which finds the ranks by their files, asks them, and looks at the rules."""

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from parallel_lab.systems.processes import serving, wait_for
from parallel_lab.systems.scheduling.alarms import Alert, Rule, rules_file
from parallel_lab.systems.scheduling.exporter import HOST, ask

PROGRAM = "prometheus"
CONFIG = """
global: {{scrape_interval: {ms}ms, scrape_timeout: {ms}ms, evaluation_interval: {ms}ms}}
rule_files: [{folder}/rules.yml]
scrape_configs:
- job_name: training
  file_sd_configs: [{{files: ['{targets}/rank-*.json'], refresh_interval: 1s}}]
"""


def missing() -> str:
    """Why no Prometheus can run here; empty where it can."""
    return "" if shutil.which(PROGRAM) else "there is no prometheus here: apt-get install prometheus"


class Prometheus:
    """A server that runs, on a port of the loopback."""

    def __init__(self, port: int) -> None:
        self.port = port

    def alerts(self) -> list[Alert]:
        """The alerts as they stand."""
        found = json.loads(ask(self.port, "/api/v1/alerts", 5.0))["data"]["alerts"]
        return [Alert(each["labels"]["alertname"], each["labels"]["rank"], each["state"]) for each in found]


@contextmanager
def prometheus(folder: Path, targets: Path, rules: Sequence[Rule], every_s: float = 0.2) -> Iterator[Prometheus]:
    """A Prometheus that asks the ranks of `targets` every `every_s`, its files in `folder`; from the main thread.

    Raises:
        ServerFailed: it did not come up.
    """
    (folder / "rules.yml").write_text(rules_file(rules, every_s))
    (folder / "config.yml").write_text(CONFIG.format(ms=round(1000 * every_s), folder=folder, targets=targets))
    command = [PROGRAM, f"--config.file={folder}/config.yml", f"--storage.tsdb.path={folder}/data"]
    with serving([*command, f"--web.listen-address={HOST}:0"], folder / "prometheus.log") as server:
        wait_for(lambda: "Server is ready" in server.printed(), [server])
        (port,) = re.findall(rf'"Listening on" address={re.escape(HOST)}:(\d+)', server.printed())
        yield Prometheus(int(port))
