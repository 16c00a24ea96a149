"""examples/kubernetes.yaml fits the program that it runs, and its numbers fit each other."""

import importlib.util
import re
import shlex

import pytest
import yaml
from command_lines import check
from pages import ROOT

TEXT = (ROOT / "examples/kubernetes.yaml").read_text()
PROGRAM = ROOT / "examples/fastapi_service.py"
OBJECTS = {each["kind"]: each for each in yaml.safe_load_all(TEXT)}
POD = OBJECTS["Deployment"]["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]


@pytest.fixture(scope="module")
def paths():
    spec = importlib.util.spec_from_file_location("fastapi_service", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {route.path for route in module.router.routes}


def test_the_program_has_the_options(monkeypatch):
    monkeypatch.chdir(ROOT)
    check([*CONTAINER["command"], *CONTAINER["args"]])


def test_the_program_reads_the_variables():
    for variable in CONTAINER["env"]:
        assert f'os.getenv("{variable["name"]}"' in PROGRAM.read_text()


def test_probes_ask_for_what_there_is(paths):
    probes = [CONTAINER[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")]
    assert {probe["path"] for probe in probes} == {"/ready", "/healthz"} < paths
    assert {probe["port"] for probe in probes} == {CONTAINER["ports"][0]["name"]}
    assert CONTAINER["readinessProbe"]["httpGet"]["path"] != CONTAINER["livenessProbe"]["httpGet"]["path"]


def test_all_speak_of_one_port():
    (port,) = CONTAINER["ports"]
    assert POD["metadata"]["annotations"]["prometheus.io/port"] == str(port["containerPort"])
    assert f"127.0.0.1:{port['containerPort']}/drain" in before_the_end()
    assert f'"--port", type=int, default={port["containerPort"]}' in PROGRAM.read_text()
    assert OBJECTS["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]


def before_the_end():
    return CONTAINER["lifecycle"]["preStop"]["exec"]["command"][-1]


def test_what_runs_before_the_end_is_a_program():
    command = CONTAINER["lifecycle"]["preStop"]["exec"]["command"]
    assert shlex.join(command[:2]) == "python -c"
    compile(command[-1], "preStop", "exec")


def test_nobody_is_killed_while_a_listener_may_still_listen():
    seconds = [
        int(re.search(r"timeout=(\d+)", before_the_end())[1]),
        int(re.search(r"timeout_graceful_shutdown=(\d+)", PROGRAM.read_text())[1]),
        float(re.search(r"close\(drain=([\d.]+)\)", PROGRAM.read_text())[1]),
        2.0,  # close_timeout
    ]
    assert sum(seconds) + 10 <= POD["spec"]["terminationGracePeriodSeconds"]
