"""What pyproject.toml cannot say: ``configs/`` and the pages that reports link stand beside the package here,
and lie inside it once installed.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["repro*"]), "repro.configs", "repro.docs"],
    package_dir={"repro.configs": "configs", "repro.docs": "docs"},
    package_data={
        "repro": ["report/*.j2", "paper/*.yaml", "outcomes/*.json"],
        "repro.configs": ["*/*.yaml"],
        "repro.docs": ["statistics.md"],
    },
)
