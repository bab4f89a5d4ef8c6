"""Images: from where they lie to the batch that a worker trains on."""

from trainers.data.dataset import Dataset, open_dataset
from trainers.data.spec import DataSpec

__all__ = ["DataSpec", "Dataset", "open_dataset"]
