"""Print what pyproject.toml depends on, a line each, so that an image can install it before tandem's own code."""

import tomllib
from pathlib import Path

print(*tomllib.loads(Path("pyproject.toml").read_text())["project"]["dependencies"], sep="\n")
