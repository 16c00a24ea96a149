"""CPU per task: the drop-in classes beside the official SDK's, with the same program.

100 threads borrow, speak by callback and return, on an object pool of 100; task_cost.py tells of the task, the server
and how it is measured. `stream` stands beside them: the same work on one event loop, without a thread.
"""

from __future__ import annotations

import sys

import task_cost

task_cost.ROWS = {"stream": ("stream", False), "dropin": ("dropin", False), "official": ("official", False)}
task_cost.RATIOS = {"official_over_dropin": ("official", "dropin", 6.0, False)}
task_cost.__doc__ = __doc__

if __name__ == "__main__":
    sys.exit(task_cost.main())
