"""Property tests here are small and never fail for being slow on a busy machine."""

from __future__ import annotations

from tests.properties import use_small_examples

use_small_examples()
