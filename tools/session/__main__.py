"""Record the terminal session of the home page again, and draw it: `python -m tools.session`.

`python -m tools.session --draw` draws what was recorded before.
"""

import sys

from tools.session.capture import ASSETS, read_recording, record_session, write_recording
from tools.session.drawing import recording_files

if "--draw" not in sys.argv[1:]:
    write_recording(record_session())
for name, content in recording_files(read_recording()).items():
    (ASSETS / name).write_text(content, "utf-8")
