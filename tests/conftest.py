"""What every test starts from: no settings of the reader's own, no network, no cache that outlives the run."""

import atexit
import os
import shutil
import tempfile

cache = tempfile.mkdtemp()
atexit.register(shutil.rmtree, cache, ignore_errors=True)
for setting in ("DGML_WEIGHTS", "DGML_IMAGES"):
    os.environ.pop(setting, None)
# Read when datasets is imported, so a fixture would come too late.
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_CACHE=cache, MPLBACKEND="agg")
