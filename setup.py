"""Builds the Cython extensions; every setting else is in pyproject.toml."""

from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

SOURCES = sorted(Path("cython_ext").glob("*.pyx"))

setup(
    ext_modules=cythonize(
        [
            Extension(
                f"cython_ext.{source.stem}",
                [str(source)],
                language="c++",
                extra_compile_args=["-O3", "-std=c++17", "-fno-strict-aliasing"],
            )
            for source in SOURCES
        ],
        compiler_directives={"language_level": 3, "boundscheck": False, "wraparound": False, "embedsignature": True},
        nthreads=2,
    )
)
