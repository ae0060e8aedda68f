"""The table of robust accuracies: known verdicts, known intervals, and what stands beside what."""

from victims import *  # noqa: F403
