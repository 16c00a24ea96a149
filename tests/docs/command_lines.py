"""Commands of a page: what they would run, and whether that exists with those options."""

import functools
import re
import shlex
import subprocess
import sys
import tomllib

import typer
from pages import ROOT

from speechpool.cli.app import build

__all__ = ["check", "check_names", "commands", "transcript"]

UNCHECKED = {
    ".",
    "cd",
    "curl",
    "docker",
    "export",
    "ffplay",
    "helm",
    "kill",
    "kubectl",
    "promtool",
    "ulimit",
    "uvicorn",
}
"""Other people's programs."""
command_line = functools.cache(lambda: typer.main.get_command(build()))


def transcript(block):
    """Return pairs of a command and what it prints: lines after `$ ` are commands."""
    pairs = []
    for line in joined(block.code).splitlines():
        if line.startswith("$ "):
            pairs.append((line[2:], []))
        else:
            assert pairs, f"{block.place}: a console block begins with '$ '"
            pairs[-1][1].append(line)
    return [(command, "\n".join(lines)) for command, lines in pairs]


def joined(code):
    return re.sub(r"\\\n\s*", "", code)


def commands(block):
    """Return each command of a block as its words, without redirections."""
    if block.language == "console":
        lines = [command for command, _ in transcript(block)]
    elif block.language == "dockerfile":
        lines = re.findall(r"^RUN (.*)", joined(block.code), re.MULTILINE)
    else:
        lines = joined(block.code).splitlines()
    found = []
    for line in lines:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = []
        for word in [*lexer, ";"]:
            if word in {";", "&", "&&", "|", "||"}:
                found += [words] if words else []
                words = []
            else:
                words.append(word)
    return found


def check(words):
    """Fail where a command does not exist, or does not know its options."""
    words = [word for index, word in enumerate(words) if not (word in {">", "<"} or words[index - 1] in {">", "<"})]
    while re.match(r"\w+=", words[0]):
        words = words[1:]
    program, *arguments = words
    program = program.removeprefix(".venv/bin/")
    if program == "python" and arguments[:2] == ["-m", "speechpool"]:
        program, arguments = "speechpool", arguments[2:]
    if program == "speechpool":
        check_verb(arguments)
    elif program == "python":
        check_program(arguments)
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in arguments if "=" not in word} <= set(targets)
    elif program == "pip":
        check_install(arguments)
    else:
        assert program in UNCHECKED, f"{program}: an unknown program"


def check_verb(arguments):
    """Parse the arguments as `speechpool` would, with every type and range, and run nothing."""
    command, name = command_line(), "speechpool"
    if arguments == ["--help"]:
        return
    parent = None
    while True:
        group = hasattr(command, "resolve_command")
        parent = command.make_context(name, list(arguments), parent=parent, resilient_parsing=group)
        if not group:
            return
        assert parent._protected_args, "a verb is missing"
        name, command, arguments = command.resolve_command(parent, [*parent._protected_args, *parent.args])


def check_names(arguments):
    """Fail where verbs or options of a command that is only mentioned do not exist; its values may be anything."""
    command = command_line()
    for word in arguments:
        if word.startswith("-"):
            assert word.partition("=")[0] in {name for each in command.params for name in each.opts}, word
        elif hasattr(command, "commands"):
            assert word in command.commands, word
            command = command.commands[word]


@functools.cache
def help_of(*program):
    done = subprocess.run([sys.executable, *program, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def check_program(arguments):
    program = arguments[:2] if arguments[0] == "-m" else arguments[:1]
    known = set(re.findall(r"--[\w-]+", help_of(*program)))
    assert {word for word in arguments if word.startswith("--")} <= known


def check_install(arguments):
    assert arguments[0] == "install"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in arguments[1:]:
        if named := re.fullmatch(r"speechpool\[(.*)\]", word):
            assert set(named[1].split(",")) <= set(extras)
