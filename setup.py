"""Only what setup.cfg cannot say: which extension cffi builds."""

from setuptools import setup

setup(cffi_modules=["native_build.py:ffibuilder"])
