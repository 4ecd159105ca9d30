"""Stage 2, preprocess: records of the log become arrays; no string goes past here.

Ids get rows, events get their training weight and polarity, and every event is
set beside the exact history that its user had just before it. Both roles run
this same fold, so trainer and server agree on every row.
"""

from headwater.preprocess._catalogue import Catalogue, Profiles
from headwater.preprocess._histories import Histories
from headwater.preprocess._naming import Named
from headwater.preprocess._parts import joined, taken
from headwater.preprocess._preprocessor import Preprocessor
from headwater.preprocess._tokens import CATEGORY
from headwater.preprocess._vocabulary import Vocabulary

__all__ = [
    "CATEGORY",
    "Catalogue",
    "Histories",
    "Named",
    "Preprocessor",
    "Profiles",
    "Vocabulary",
    "joined",
    "taken",
]
