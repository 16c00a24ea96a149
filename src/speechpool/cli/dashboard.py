"""`speechpool dashboard`: files for Grafana and Prometheus, made from the metrics that this version has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Final

import typer

from .outcome import CannotWrite

__all__ = ["register"]

_SCRAPE: Final = """\
# A piece of prometheus.yml: asks every process for its numbers.
scrape_configs:
  - job_name: speechpool
    static_configs:
      - targets: ["127.0.0.1:9464"]
rule_files:
  - speechpool-rules.yml
"""
_PROVISIONING: Final = """\
# For Grafana's provisioning/dashboards: shows speechpool-dashboard.json, which lies in the folder named below.
apiVersion: 1
providers:
  - name: speechpool
    type: file
    options:
      path: /var/lib/grafana/dashboards
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    dashboard = typer.Typer(help="Dashboards and alert rules for Grafana and Prometheus.", no_args_is_help=True)
    dashboard.command("export")(export)
    dashboard.callback()(lambda: None)  # else the only command would take the place of the group
    app.add_typer(dashboard, name="dashboard")


def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to; it is made if it is missing.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Tell what was written as one line of JSON.")] = False,
) -> None:
    """Write the Grafana dashboard, the recording and alert rules, and examples of how to use them.

    Files of the same names are replaced.
    """
    from speechpool.monitoring import dashboards, rules

    files = {
        "speechpool-dashboard.json": dashboards.written(),
        "speechpool-rules.yml": rules.written(),
        "prometheus-scrape.yml": _SCRAPE,
        "grafana-provisioning.yml": _PROVISIONING,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise CannotWrite(f"cannot write to {folder}: {error.strerror}; choose another folder.") from error
    written = [str(folder / name) for name in files]
    typer.echo(json.dumps({"written": written}) if as_json else "\n".join(written))
