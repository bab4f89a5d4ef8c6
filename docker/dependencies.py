"""Print what tandem with both frameworks depends on, so that an image can install it before tandem's own code."""

import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"]
print(*project["dependencies"], *extras["keras"], *extras["torch"], sep="\n")
