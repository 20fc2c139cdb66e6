from .errors import ReproducibilityError as ReproducibilityError
from .explain.compare import compare as compare
from .keys import index_key as index_key
from .keys import process_key as process_key
from .keys import root_key as root_key
from .keys import step_key as step_key
from .keys import stream_key as stream_key
from .machine.environment import capture_environment as capture_environment
from .machine.known import known_faults as known_faults
from .recording.recorder import Recorder as Recorder
from .reference.config import TrainConfig as TrainConfig
from .reference.step import TrainState as TrainState
from .reference.loop import train as train
from .same.fingerprint import fingerprint as fingerprint
from .same.hashing import leaf_digests as leaf_digests
from .same.hashing import tree_digest as tree_digest
from .storage.checkpoint import CheckpointStore as CheckpointStore

__version__: str
