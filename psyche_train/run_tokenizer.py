"""The tokenizer of a run: what goes into its checkpoints, so that exports open with transformers' AutoTokenizer."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from psyche_train.checkpoints.errors import CheckpointError
from psyche_train.checkpoints.files import TOKENIZER_FILES
from psyche_train.data.encoders import load_encoder
from psyche_train.data.errors import DataError
from psyche_train.data.tokenizer import save_byte_tokenizer
from psyche_train.matformer.first import checkpoint_dir
from psyche_train.spec import FixedSource, InitCheckpoint, StdlibData, TrainSpec
from psyche_train.spec.data import HubData, LocalData, ParquetData, PeersData

logger = logging.getLogger(__name__)

MAX_FILE_BYTES = 64 << 20


def tokenizer_files(spec: TrainSpec, vocab_size: int, data: Path | None = None) -> dict[str, bytes]:
    """Name -> bytes of the files that belong to a run's tokenizer; empty where nothing here says which it is.

    The first checkpoint's comes first, then that of the first source of data that has one. What cannot be read is
    left out with a warning in the log: training does not need it.

    Args:
        vocab_size: of the model; a tokenizer with more tokens is not the run's.
        data: the run's data on this machine, where they are elsewhere than the run says.
    """
    chosen = spec.checkpoint.chosen
    try:
        if not isinstance(chosen, InitCheckpoint) and (found := _of_folder(checkpoint_dir(chosen))):
            return found
        for _, source in spec.data_location.sources:
            if found := _of_data(source, vocab_size, data):
                return found
    except (CheckpointError, DataError, OSError) as error:
        logger.warning("checkpoints get no tokenizer reason=%s", error)
    return {}


def _of_data(source: FixedSource, vocab_size: int, data: Path | None) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as there:
        folder = Path(there)
        if isinstance(source, StdlibData) and vocab_size == 256:
            save_byte_tokenizer(folder)
        elif isinstance(source, HubData | ParquetData):
            encoder = load_encoder(source.tokenizer)
            if encoder.vocab_size <= vocab_size:
                encoder.save(folder)
        elif isinstance(source, LocalData | PeersData) and (data or source.path):
            folder = data or Path(source.path).expanduser()
        return _of_folder(folder)


def _of_folder(folder: Path) -> dict[str, bytes]:
    paths = [folder / name for name in TOKENIZER_FILES]
    return {
        path.name: path.read_bytes()
        for path in paths
        if path.is_file() and path.stat().st_size <= MAX_FILE_BYTES
    }
