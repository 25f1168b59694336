"""What stands where in a run folder."""

from __future__ import annotations

import re

FOLDERS = ("stimuli", "traces", "records")
INPUTS = "inputs"  # copies of images and weights, where there are any
MEASUREMENTS_FOLDER = "measurements"  # tables of what was measured of finished stimuli, where there are any
SHEET = "contact_sheet.png"
CONTROLS_SHEET = "controls.png"  # derived too, where there are controls
# What a folder can hold that was left before its lock file was written.
BEGUN = re.compile(r"stimuli|traces|records|protocol\.toml|environment\.json|journal\.csv|\.lock.*|\..*\.tmp")
OWN_FILES = re.compile(
    r"protocol\.toml|protocol\.lock\.json|environment\.json|journal\.csv|manifest\.(csv|nc)|(losses|windows|distances)\.csv|contact_sheet\.png"
    r"|controls\.png|stimuli|traces|records|inputs|measurements|audit|report\.html|README\.md|SHA256SUMS"
    r"|LICENCE|CITATION\.cff|data_dictionary\.csv|trials|answers|\..*"
)
"""What a run folder holds, with what audits, reports and archives add; hidden files belong to tools such as git."""
CLUTTER = re.compile(r"\.DS_Store|\._.*|Thumbs\.db|desktop\.ini")  # that file managers leave
