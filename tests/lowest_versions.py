"""Print the lowest versions that pyproject.toml allows, as constraints for pip, a line each."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"]
used = ("keras", "torch", "onnx", "heic", "dicom")
for requirement in [*project["dependencies"], *(one for extra in used for one in extras[extra])]:
    if lowest := re.match(r"([\w-]+)(?:\[.*\])?>=([\w.]+)", requirement):
        print("{}=={}".format(*lowest.groups()))
