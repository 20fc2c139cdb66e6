"""Record what the first screen of the home page shows, and draw it: `python -m tools.session`.

`python -m tools.session --draw` draws what was recorded before.
"""

import sys

from tools.session.capture import ASSETS, read_recording, record_session, write_recording
from tools.session.curves import curve_files, record_curves
from tools.session.drawing import recording_files

if "--draw" not in sys.argv[1:]:
    write_recording(record_session() | record_curves())
recording = read_recording()
for name, content in (recording_files(recording) | curve_files(recording)).items():
    (ASSETS / name).write_text(content, "utf-8")
