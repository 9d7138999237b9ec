"""Builds one wheel for every Python of a platform, with or without the compiled code.

The compiled code is a plain shared library that ctypes loads. CHATSTREAM_FLASK_NATIVE=require, for a release,
lets the build fail where it does not compile; CHATSTREAM_FLASK_NATIVE=skip leaves it out, for a wheel of
any platform; with neither it is left out only where it does not compile.
"""

from __future__ import annotations

import os
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

CHOICES = ("", "require", "skip")
NATIVE = os.environ.get("CHATSTREAM_FLASK_NATIVE", "")


class Package(Distribution):
    """With the compiled code, without it, or with it where there is a compiler."""

    def finalize_options(self) -> None:
        super().finalize_options()
        if NATIVE not in CHOICES:
            raise SystemExit(f"CHATSTREAM_FLASK_NATIVE must be one of {CHOICES}, not {NATIVE!r}")
        if NATIVE == "skip":
            self.ext_modules = []
        for extension in self.ext_modules or []:
            extension.optional = NATIVE != "require"


class SharedLibrary(build_ext):
    """A library without PyInit function, whose name is the same for every Python."""

    def get_ext_filename(self, fullname: str) -> str:
        return os.path.join(*fullname.split(".")) + (".pyd" if os.name == "nt" else ".so")

    def get_export_symbols(self, ext: object) -> list[str]:
        return []

    def copy_extensions_to_source(self) -> None:
        for extension in self.extensions:
            built = Path(*extension.name.split("."))
            for older in built.parent.glob(f"{built.name}.*.so"):  # built for one Python, and found first
                older.unlink()
        super().copy_extensions_to_source()


class Wheel(bdist_wheel):
    """For any Python 3 of the platform."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


setup(distclass=Package, cmdclass={"build_ext": SharedLibrary, "bdist_wheel": Wheel})
