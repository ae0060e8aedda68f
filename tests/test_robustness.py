"""The table of robust accuracies: known verdicts, known intervals, and what stands beside what."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from victims import *  # noqa: F403

from helpers import data, robustness
