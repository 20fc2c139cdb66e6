from .checkpoint import CheckpointStore as CheckpointStore
from .compare import compare as compare
from .config import TrainConfig as TrainConfig
from .environment import capture_environment as capture_environment
from .errors import ReproducibilityError as ReproducibilityError
from .fingerprint import fingerprint as fingerprint
from .hashing import leaf_digests as leaf_digests
from .hashing import tree_digest as tree_digest
from .keys import index_key as index_key
from .keys import process_key as process_key
from .keys import root_key as root_key
from .keys import step_key as step_key
from .keys import stream_key as stream_key
from .machine.known import known_faults as known_faults
from .recorder import Recorder as Recorder
from .training import TrainState as TrainState
from .training import train as train

__version__: str
