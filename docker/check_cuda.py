"""Check that the CUDA libraries of TensorFlow and PyTorch are installed side by side as both frameworks' wheels ask.

Usage: python check_cuda.py [DIRECTORY …]; the directories of packages, this Python's own where left out.
Prints one line for each problem and ends with code 1, or the versions found.

Two wheels for different versions of CUDA may install the same file, such as nvidia/cudnn/lib/libcudnn.so.9 of
nvidia-cudnn-cu12 and nvidia-cudnn-cu13: the one that was installed last then serves both frameworks.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FRAMEWORKS = {"tensorflow": "and-cuda", "torch": ""}
"""Each with the extra that asks for its CUDA libraries."""
_CUDA = re.compile(r"nvidia-|cuda-|triton")
_MAJOR = re.compile(r"-cu(\d+)$")


def problems(installed: dict[str, Distribution]) -> Iterator[str]:
    """What keeps either framework from using a GPU.

    Args:
        installed: distributions by their canonical names.
    """
    majors = {}
    for framework, extra in FRAMEWORKS.items():
        if framework not in installed:
            yield f"{framework} is not installed"
            continue
        wanted = list(cuda_requirements(installed, framework, extra))
        if not wanted:
            version = installed[framework].version
            yield f"{framework} {version} asks for no CUDA library: it is a build for CPUs"
        for each in wanted:
            if major := _MAJOR.search(each.name):
                majors[framework] = major[1]
            found = installed.get(canonicalize_name(each.name))
            if found is None:
                yield f"{framework} needs {each.name}{each.specifier}, which is not installed"
            elif not each.specifier.contains(found.version, prereleases=True):
                yield f"{framework} needs {each.name}{each.specifier}, but {found.version} is installed"
    if len(set(majors.values())) > 1:
        described = ", ".join(f"{framework} is built for CUDA {major}" for framework, major in majors.items())
        yield f"{described}: install wheels for one version of CUDA, as the Dockerfile's TORCH_CUDA says"
    yield from clashes(installed)


def cuda_requirements(installed: dict[str, Distribution], name: str, extra: str) -> Iterator[Requirement]:
    """The CUDA libraries that a distribution asks for on this platform, through metapackages as well."""
    for text in installed[name].requires or []:
        requirement = Requirement(text)
        if not _CUDA.match(requirement.name):
            continue
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        yield requirement
        for inner in requirement.extras:
            if (below := canonicalize_name(requirement.name)) in installed:
                yield from cuda_requirements(installed, below, inner)


def clashes(installed: dict[str, Distribution]) -> Iterator[str]:
    """Libraries that two distributions installed."""
    owners: dict[str, str] = {}
    told = set()
    for name, distribution in sorted(installed.items()):
        if not _CUDA.match(name):
            continue
        for file in distribution.files or []:
            if ".so" not in file.name:
                continue
            other = owners.setdefault(str(file), name)
            if other != name and (other, name) not in told:
                told.add((other, name))
                yield f"{other} and {name} both install {file}"


def found(directories: list[str] | None) -> dict[str, Distribution]:
    """The distributions in some directories, by their canonical names."""
    all_of_them = distributions(path=directories) if directories else distributions()
    return {canonicalize_name(each.name): each for each in all_of_them}


def main(directories: list[str]) -> int:
    """Print what is wrong, or what is there; returns the exit code."""
    installed = found(directories or None)
    if wrong := list(problems(installed)):
        print(*wrong, sep="\n")
        return 1
    cuda = {name: each.version for name, each in sorted(installed.items()) if _CUDA.match(name)}
    print(*(f"{name} {version}" for name, version in cuda.items()), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
