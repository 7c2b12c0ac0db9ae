# SPDX-License-Identifier: Apache-2.0
"""How Sphinx makes the site: ``make docs``."""
from pathlib import Path
import sys
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

project = 'forecast_detector_ros'
author = 'forecast_detector_ros developers'
project_copyright = f'{author}; Apache-2.0'
release = ElementTree.parse(ROOT / 'package.xml').findtext('version')

extensions = ['myst_parser', 'sphinx.ext.autodoc']
html_theme = 'furo'
html_title = f'{project} {release}'
exclude_patterns = ['_build']

# Anchors as GitHub makes them, so that a link works in both places.
myst_heading_anchors = 4

autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
python_use_unqualified_type_names = True
# Pages quote programs that print arrows and boxes; nothing of it is a language.
# Single backticks in docstrings are code.
default_role = 'code'
highlight_language = 'none'
