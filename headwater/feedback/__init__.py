"""Stage 8, feedback: joins what was shown with what was done, however late that comes.

``Feedback`` keeps served lists and counts which of them were acted on: by id, or by
user, item and time. That is a fact about the lists, and nothing learns from it.

``Impressions`` joins the impressions that clients send with what their users did
then, and says which were ignored. It is a fold of the events log alone: a request
can't teach anything, and a refold gives the same labels. They go to training and are
never appended (a derived event would count twice on a refold).
"""

from headwater.feedback._attribution import Feedback
from headwater.feedback._impressions import Impressions

__all__ = ["Feedback", "Impressions"]
