"""What pyproject.toml cannot say: the recipes beside the package go into the wheel inside it, as segplus/configs."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["segplus*"]), "segplus.configs"],
    package_dir={"segplus.configs": "configs"},
    package_data={"segplus.configs": ["**/*.yaml"]},
)
