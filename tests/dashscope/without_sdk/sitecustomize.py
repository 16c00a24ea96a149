"""On PYTHONPATH this hides the official SDK, as if it were not installed."""

from importlib.machinery import PathFinder

find_spec = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.partition(".")[0] == "dashscope" else find_spec(name, *rest)
