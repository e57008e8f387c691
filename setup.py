"Everything comes from settings.ini, so that nbdev and pip never disagree."

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(here / "settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]
EXTRAS = ("timm", "ray", "tensorboard", "explorer", "video", "notebooks", "dev")

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    author_email=cfg["author_email"],
    url=cfg["git_url"],
    license="Apache-2.0",
    keywords=cfg["keywords"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: " + cfg["audience"],
        "Programming Language :: Python :: 3",
    ],
    packages=find_packages(include=["zeroinit", "zeroinit.*"]),
    package_data={"zeroinit": ["*.csv"], "zeroinit.publish": ["*.html", "*.css", "*.js"]},
    python_requires=">=" + cfg["min_python"],
    install_requires=cfg["requirements"].split(),
    extras_require={name: cfg[f"{name}_requirements"].split() for name in EXTRAS},
    entry_points={
        "console_scripts": cfg["console_scripts"].split(),
        # papermill loads this group before it reads its arguments:
        # see nbs/sweep/04_papermill_output.ipynb
        "papermill.io": ["zeroinit+nothing=zeroinit.sweep.papermill_output:UnusedHandler"],
        "nbdev": [f"{cfg['lib_name']}={cfg['lib_name']}._modidx:d"],
    },
    zip_safe=False,
)
