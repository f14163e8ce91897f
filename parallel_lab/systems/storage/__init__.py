"""Where data lie: file systems, object stores, caches and databases; formats, and readers that keep ranks fed.

What needs a library besides the course's own stands in modules to import by name: `s3` (boto3), `columns` (pyarrow),
`key_value` (redis).
"""

from parallel_lab.systems.storage import database, erasure, formats, formulas, measure, reader, servers
from parallel_lab.systems.storage.database import Index, Place
from parallel_lab.systems.storage.local import Local
from parallel_lab.systems.storage.measure import Measured
from parallel_lab.systems.storage.prefetch import Prefetcher
from parallel_lab.systems.storage.reader import Far
from parallel_lab.systems.storage.servers import Endpoint
from parallel_lab.systems.storage.store import Memory, Missing, Refused, Store

__all__ = [
    "Endpoint",
    "Far",
    "Index",
    "Local",
    "Measured",
    "Memory",
    "Missing",
    "Place",
    "Prefetcher",
    "Refused",
    "Store",
    "database",
    "erasure",
    "formats",
    "formulas",
    "measure",
    "reader",
    "servers",
]
