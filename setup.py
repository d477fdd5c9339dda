"""What pyproject.toml cannot say: ``configs/``, which stands beside the package here, lies inside it once
installed.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["repro*"]), "repro.configs"],
    package_dir={"repro.configs": "configs"},
    package_data={"repro": ["report/*.j2", "paper/*.yaml", "outcomes/*.json"], "repro.configs": ["*/*.yaml"]},
)
